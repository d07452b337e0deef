ws.send(JSON.stringify({
  type: "publish",
  channel: "agents/backend-laravel",
  event: "message.new",
  data: { content: "Migration complete", priority: 1 },
  id: "pub-1",
  timestamp: Date.now(),
}));
