//! Commands against a real socket.
