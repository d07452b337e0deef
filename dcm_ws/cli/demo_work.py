"""
What the six agents of C{dcm-ws demo} have to do, and what they say to each other.
"""

from __future__ import annotations

from typing import NamedTuple

AGENTS = ("planner", "backend", "frontend", "tester", "reviewer", "ops")


class Work(NamedTuple):
    """
    A task that the planner gives to an agent.

    @ivar parts: the names of its subtasks, in the order in which they are done.
    """

    agent: str
    name: str
    parts: tuple[str, ...]


class Question(NamedTuple):
    """
    What keeps an agent from going on with its work.

    @ivar whom: the agent that knows the answer.
    """

    whom: str
    text: str
    answer: str


WORKS = (
    Work(
        "backend",
        "Add a rate limit to the login",
        ("read the middleware", "write the limiter", "measure it under load"),
    ),
    Work("frontend", "Show the progress of uploads", ("draw the bar", "read the events", "add a cancel button")),
    Work("tester", "Run the tests of the checkout", ("prepare the data", "run the suite", "compare the screenshots")),
    Work("reviewer", "Review the search filters", ("read the change", "try it out")),
    Work("ops", "Deploy version 4.2 to staging", ("build the image", "migrate the database", "switch over")),
    Work("backend", "Export invoices as CSV", ("write the query", "stream the rows", "document the columns")),
    Work("frontend", "Fix the date picker in Safari", ("reproduce it", "replace the parser")),
    Work("tester", "Reproduce bug 418", ("read the report", "write a failing test")),
    Work("reviewer", "Review the rate limit", ("read the change", "check the limits", "try it out")),
    Work("backend", "Index the orders table", ("find the slow queries", "create the index", "compare the plans")),
    Work("frontend", "Add a dark mode to the settings", ("choose the colours", "store the choice", "check contrast")),
    Work("ops", "Rotate the database password", ("make a new one", "restart the workers")),
    Work("tester", "Put load on the search", ("record a session", "replay it", "draw the latencies")),
    Work("reviewer", "Review the CSV export", ("read the change", "open the file in a spreadsheet")),
    Work("backend", "Delete sessions that have expired", ("write the query", "schedule it")),
    Work("frontend", "Translate the checkout", ("collect the texts", "ask for translations", "check the layout")),
    Work("tester", "Check the settings with a screen reader", ("walk through the page", "write down what is missing")),
    Work("reviewer", "Review the date picker", ("read the change", "try it out")),
    Work("ops", "Deploy version 4.2", ("take a backup", "switch over", "watch the errors")),
)
"""
In the order in which the planner gives them out.
"""

WHILE_AWAY = Work("frontend", "Shorten the names in the menu", ("list the names", "agree with the planner"))
"""
What the planner gives to the agent that is away.
"""

QUESTIONS = {
    "backend": Question("ops", "How many connections may the pool open?", "20 for each worker."),
    "frontend": Question("backend", "Does the field size hold bytes or pages?", "Bytes."),
    "tester": Question("backend", "Which user may see the invoices?", "Take demo-7; it has the role accountant."),
    "reviewer": Question("frontend", "Why is the list sorted twice?", "An oversight. I have removed one of them."),
    "ops": Question("reviewer", "May I deploy while the review is open?", "Yes, it only changes the tests."),
}
"""
By the agent that asks.
"""

NEXT = {"backend": "reviewer", "frontend": "reviewer", "reviewer": "tester", "tester": "ops", "ops": "planner"}
"""
Who hears from an agent that it has finished a task.
"""

ERRORS = (
    "2 of 148 tests failed",
    "the disk of the build machine is full",
    "the migration took longer than its limit of 30 s",
    "the certificate of staging has expired",
)
"""
Why a subtask fails.
"""
