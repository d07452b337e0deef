/**
 * A plausible afternoon of a team of agents, by real clients and a real database.
 */
import { client } from "./running.js";

export const AGENTS = ["planner", "coder-1", "coder-2", "reviewer", "tester", "docs-writer"];
const TASKS = ["Parse the change log", "Add retry to the uploader", "Review pull request 214", "Write the release notes", "Fix the flaky login test"];

const pick = (list, n) => list[n % list.length];

/** The tables, with something in them for the key figures. */
export async function furnish(service) {
  await service.sql(`
    insert into sessions select 'session-' || n, now() - n * interval '7 minutes', null from generate_series(1, 9) n;
    insert into task_lists select 'list-' || n, 'request-' || n, 'Release 2.4', n, 'running', now(), null from generate_series(1, 12) n;
    insert into task_lists select 'wait-' || n, 'request-' || n, 'Release 2.5', n, 'pending', now(), null from generate_series(1, 31) n;
    insert into task_lists select 'done-' || n, 'request-' || n, 'Release 2.3', n, 'completed', now() - interval '9 minutes', now() - interval '4 minutes'
      from generate_series(1, 148) n;
    insert into subtasks select 'sub-' || n, 'list-1', 'coder', 'coder-' || (n % 5), 'Work', 'running', now(), null, null from generate_series(1, 12) n;
    insert into agent_messages select 'message-' || n, 'planner', 'coder-1', 'work', '{}', 1, now() - n * interval '8 seconds', null from generate_series(1, 402) n;
    insert into actions select 'action-' || n, 'session-1', 'edit', now() - n * interval '3 seconds' from generate_series(1, 95) n;
  `);
}

/** Let agents work; answers how to stop them. */
export async function work(service, { perSecond = 12 } = {}) {
  const agents = await Promise.all(
    AGENTS.map(async (name) => {
      const agent = client(service.url, { agentId: name, sessionId: `session-${1 + (name.length % 3)}`, channels: ["topics/release-2.4", "topics/ci"] });
      await agent.connect();
      return agent;
    }),
  );
  let n = 0;
  const began = Date.now();
  let timer;
  const step = () => {
    n += 1;
    const name = pick(AGENTS, n * 7);
    const agent = agents[AGENTS.indexOf(name)];
    const task = pick(TASKS, n);
    const all = [
      ["topics/release-2.4", "task.created", { task_id: `t-${100 + n}`, title: task, agent_id: name, wave: n % 4 }],
      [`agents/${name}`, "message.new", { from_agent_id: pick(AGENTS, n), to_agent_id: name, topic: "review", text: "Please look at the second commit." }],
      ["sessions/session-1", "subtask.running", { subtask_id: `s-${n}`, agent_id: name, description: task }],
      ["topics/release-2.4", "task.completed", { task_id: `t-${80 + n}`, agent_id: name, duration_ms: 1200 + ((n * 377) % 9000), result: { files: n % 7, tests: "passed" } }],
      ["global", "agent.heartbeat", { agent_id: name, load: (n % 10) / 10 }],
      ["topics/ci", "subtask.completed", { subtask_id: `s-${n}`, agent_id: "tester", tests: 214, failed: 0 }],
      ["topics/release-2.4", "task.updated", { task_id: `t-${90 + n}`, agent_id: name, progress: n % 100 }],
      ["global", n % 5 ? "system.info" : "system.error", { component: "coordinator", text: n % 5 ? "wave 2 begins" : "retrying a tool call" }],
      ["sessions/session-2", n % 2 ? "session.created" : "session.ended", { session_id: `session-${n % 9}` }],
    ];
    // no two of them one after the other by rule
    agent.publish(...all[Math.floor(Math.random() ** 1.3 * all.length)]).catch(() => {});
    // waves of work, with pauses between events as chance makes them
    const minutes = (Date.now() - began) / 60_000;
    const tide = 0.55 + 0.35 * Math.sin(minutes * 2.1) + 0.25 * Math.sin(minutes * 7.3 + 1);
    timer = setTimeout(step, (-Math.log(1 - Math.random()) * 1000) / (perSecond * Math.max(0.12, tide)));
  };
  step();
  return () => {
    clearTimeout(timer);
    for (const agent of agents) agent.close();
  };
}
