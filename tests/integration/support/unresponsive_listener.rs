//! A Unix socket whose program does not accept connections, as if it were stopped by SIGSTOP.

use std::io;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// A listening Unix socket with a full backlog.
pub struct UnresponsiveListener {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl UnresponsiveListener {
    /// Listens at `path` until dropped.
    pub fn listen(path: &Path) -> Self {
        let address = SockAddr::unix(path).expect("a short path");
        let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("create a socket");
        let listener = socket();
        listener.bind(&address).expect("bind");
        listener.listen(0).expect("listen");
        let mut waiting = Vec::new();
        loop {
            let client = socket();
            client.set_nonblocking(true).expect("set to non-blocking");
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        UnresponsiveListener {
            _listener: listener,
            _waiting: waiting,
        }
    }
}
