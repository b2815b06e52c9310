"""HTTP, WebSocket and TCP server with a web page; owns requests, batching across them, and the job store."""
