const ws = new WebSocket("ws://127.0.0.1:3849?agent_id=my-agent&session_id=sess-1");

ws.onopen = () => {
  // Authenticate (required for private channel access)
  ws.send(JSON.stringify({
    type: "auth",
    agent_id: "my-agent",
    session_id: "sess-1",
    timestamp: Date.now(),
  }));

  // Subscribe to metrics
  ws.send(JSON.stringify({
    type: "subscribe",
    channel: "metrics",
    id: "sub-metrics",
    timestamp: Date.now(),
  }));
};

ws.onmessage = (event) => {
  const msg = JSON.parse(event.data);

  switch (msg.type) {
    case "connected":
      console.log("Connected as", msg.client_id);
      break;
    case "ack":
      console.log("Ack:", msg.id, msg.success);
      break;
    case "ping":
      ws.send(JSON.stringify({ type: "pong", timestamp: Date.now() }));
      break;
    default:
      if (msg.event) {
        console.log("[" + msg.channel + "] " + msg.event, msg.data);
        // Acknowledge tracked messages
        if (msg.id) {
          ws.send(JSON.stringify({ type: "ack", message_id: msg.id, timestamp: Date.now() }));
        }
      }
  }
};
