//! A program that listens and accepts nothing, as one that is stopped (SIGSTOP) does.

use std::io;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// A unix socket whose backlog is full.
pub struct Stopped {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Stopped {
    /// Listens at `path` until dropped.
    pub fn listen(path: &Path) -> Self {
        let address = SockAddr::unix(path).expect("an address");
        let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let listener = socket();
        listener.bind(&address).expect("bound");
        listener.listen(0).expect("listening");
        let mut waiting = Vec::new();
        loop {
            let client = socket();
            client.set_nonblocking(true).expect("set");
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        Stopped {
            _listener: listener,
            _waiting: waiting,
        }
    }
}
