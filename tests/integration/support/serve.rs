//! Connections served without a listener and without a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onionport::config::port_line::PortLine;
use onionport::inbound::connection::serve;
use onionport::inbound::http::{self, ClientAuthForm};
use onionport::request::ClientAddr;
use onionport::request::dispatch::{Dispatcher, SharedState};
use onionport::request::policy::PortRules;
use onionport::tor::client_auth::KeyFolder;
use onionport::tor::isolation::SessionGroup;
use tokio::io::duplex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::LIMIT;
use super::client::Client;
use super::scripted::{Plan, Scripted, TIMEOUT};

/// A client on this computer.
pub const V4: ClientAddr = ClientAddr::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
/// The same, over IPv6.
pub const V6: ClientAddr = ClientAddr::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST));

/// One port, with a network behind it.
pub struct Port {
    pub tor: Arc<Scripted>,
    dispatcher: Arc<Dispatcher<Scripted>>,
    client_auth_form: Arc<ClientAuthForm>,
}

/// A connection that is being served.
pub struct Served(JoinHandle<()>);

impl Port {
    /// A port with these flags, before a network with these plans.
    pub fn new<T: Into<String>>(flags: &str, plans: impl IntoIterator<Item = (T, Plan)>) -> Self {
        Port::before(Arc::new(Scripted::new(plans)), flags, 0)
    }

    /// The port of line `number`, with these flags, before a network it may share with others.
    pub fn before(tor: Arc<Scripted>, flags: &str, number: usize) -> Self {
        let line: PortLine = format!("9150 {flags}").parse().expect("a good port line");
        let group = match line.flags.session_group {
            Some(group) => SessionGroup::Named(group),
            None => SessionGroup::Port(number),
        };
        let rules = PortRules {
            flags: line.flags,
            allow_local: false,
            allow_local_answers: false,
        };
        let dispatcher = Dispatcher {
            tor: Arc::clone(&tor),
            rules,
            group,
            timeout: TIMEOUT,
            shared: Arc::new(SharedState::default()),
        };
        Port {
            tor,
            dispatcher: Arc::new(dispatcher),
            client_auth_form: Arc::default(),
        }
    }

    /// The same port with another `socks_timeout`.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("nobody is served yet");
        dispatcher.timeout = timeout;
        self
    }

    /// The same port, with other things in common with all ports.
    pub fn with_shared(mut self, shared: SharedState) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("nobody is served yet");
        dispatcher.shared = Arc::new(shared);
        self
    }

    /// The port itself, for protocols other than SOCKS.
    pub fn dispatcher(&self) -> Arc<Dispatcher<Scripted>> {
        Arc::clone(&self.dispatcher)
    }

    /// The same port, with private addresses allowed as destinations or as answers.
    pub fn with_private(mut self, destinations: bool, answers: bool) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("nobody is served yet");
        dispatcher.rules.allow_local = destinations;
        dispatcher.rules.allow_local_answers = answers;
        self
    }

    /// The same port, with a folder for client authorization keys.
    pub fn with_keys(mut self, folder: &Path) -> Self {
        let mistrust = fs_mistrust::Mistrust::new_dangerously_trust_everyone();
        self.client_auth_form = Arc::new(ClientAuthForm::new(Some(KeyFolder::new(
            folder.to_owned(),
            mistrust,
        ))));
        self
    }

    /// What it has in common with other ports.
    pub fn shared(&self) -> &SharedState {
        &self.dispatcher.shared
    }

    /// A client of an HTTP port, from `origin`; each side buffers up to `capacity` bytes.
    pub fn http_client_with(&self, capacity: usize, origin: ClientAddr) -> (Client, Served) {
        let (near, far) = duplex(capacity);
        let (dispatcher, client_auth_form) = (
            Arc::clone(&self.dispatcher),
            Arc::clone(&self.client_auth_form),
        );
        let serving = tokio::spawn(async move {
            let local = Some((Ipv4Addr::LOCALHOST, 9080).into());
            let (_port, current) = watch::channel(dispatcher);
            http::serve(current, near, origin, local, client_auth_form).await;
        });
        (Client::over(far), Served(serving))
    }

    /// A client of an HTTP port.
    pub fn http_client(&self) -> (Client, Served) {
        self.http_client_with(1024, V4)
    }

    /// A client from `origin`; each side buffers up to `capacity` bytes.
    pub fn client_with(&self, capacity: usize, origin: ClientAddr) -> (Client, Served) {
        let (near, far) = duplex(capacity);
        let dispatcher = Arc::clone(&self.dispatcher);
        let serving = tokio::spawn(async move {
            serve(dispatcher, near, origin).await;
        });
        (Client::over(far), Served(serving))
    }

    /// A client from `origin`.
    pub fn client(&self, origin: ClientAddr) -> (Client, Served) {
        self.client_with(1024, origin)
    }

    /// A client over a real TCP connection; also its socket.
    pub async fn tcp_client(&self) -> (TcpStream, Served) {
        let (client, near) = connected().await;
        (client, self.serve(near))
    }

    /// Serves a client that was accepted.
    pub fn serve(&self, near: TcpStream) -> Served {
        let dispatcher = Arc::clone(&self.dispatcher);
        Served(tokio::spawn(async move {
            serve(dispatcher, near, V4).await;
        }))
    }

    /// A client of an HTTP port over a real TCP connection.
    pub async fn http_tcp_client(&self) -> (TcpStream, Served) {
        let (client, near) = connected().await;
        let local = near.local_addr().ok();
        let (dispatcher, client_auth_form) = (
            Arc::clone(&self.dispatcher),
            Arc::clone(&self.client_auth_form),
        );
        let serving = tokio::spawn(async move {
            let (_port, current) = watch::channel(dispatcher);
            http::serve(current, near, V4, local, client_auth_form).await;
        });
        (client, Served(serving))
    }
}

/// The two ends of a TCP connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connected"), accepted.expect("accepted").0)
}

impl Served {
    /// Waits until the connection is over.
    pub async fn end(self) {
        self.end_within(LIMIT).await;
    }

    /// Waits for at most `limit` until the connection is over.
    pub async fn end_within(self, limit: Duration) {
        let ended = timeout(limit, self.0)
            .await
            .expect("the connection goes on");
        ended.expect("no panic");
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}
