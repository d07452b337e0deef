# An agent that sleeps until somebody gives it a task: sh agent_waits.sh NAME COMMAND [ARGUMENT]...
# For each task, COMMAND gets the text of the task on standard input.  The agent that gave the task hears of its end,
# with the last lines of the output.
agent=$1
shift

field() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)["data"].get(sys.argv[1], ""))' "$1"
}

echo "$agent sleeps"
while event=$(dcm-ws wait --json --agent-id "$agent" --since last --event task.created); do
    id=$(echo "$event" | field id)
    answer_to=$(echo "$event" | field answer_to)
    echo "$agent works on $id"
    # what others have written is input of the command, and never a part of it
    echo "$event" | field text |
        dcm-ws run --agent-id "$agent" --channel "agents/$answer_to" --task-id "$id" --name "$agent" -- "$@" ||
        echo "$agent failed at $id"
done
