//! Connections served without a listener, in front of a scripted network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onionport::config::port_line::PortLine;
use onionport::inbound::connection::serve;
use onionport::inbound::http::{self, ClientAuthForm};
use onionport::inbound::lingering_close::Connection;
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
use super::scripted::{Plan, ScriptedNetwork, TIMEOUT};

/// The address of a client on this computer.
pub const V4: ClientAddr = ClientAddr::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
/// The address of a client on this computer, over IPv6.
pub const V6: ClientAddr = ClientAddr::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST));

/// A port in front of a scripted network.
pub struct Port {
    pub tor: Arc<ScriptedNetwork>,
    dispatcher: Arc<Dispatcher<ScriptedNetwork>>,
    client_auth_form: Arc<ClientAuthForm>,
}

/// The task that serves a connection.
pub struct Served(JoinHandle<()>);

impl Port {
    /// Creates a port with these flags, in front of its own network with these plans.
    pub fn new<T: Into<String>>(flags: &str, plans: impl IntoIterator<Item = (T, Plan)>) -> Self {
        Port::with_network(Arc::new(ScriptedNetwork::new(plans)), flags, 0)
    }

    /// Creates a port with these flags in front of `tor`, which several ports may share. `number` is its
    /// place in the configuration, which decides its session group unless the flags do.
    pub fn with_network(tor: Arc<ScriptedNetwork>, flags: &str, number: usize) -> Self {
        let line: PortLine = format!("9150 {flags}").parse().expect("a valid port line");
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

    /// Sets `socks_timeout`.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("no client yet");
        dispatcher.timeout = timeout;
        self
    }

    /// Replaces the state that all ports share.
    pub fn with_shared(mut self, shared: SharedState) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("no client yet");
        dispatcher.shared = Arc::new(shared);
        self
    }

    /// Returns the dispatcher, for protocols other than SOCKS and HTTP.
    pub fn dispatcher(&self) -> Arc<Dispatcher<ScriptedNetwork>> {
        Arc::clone(&self.dispatcher)
    }

    /// Sets whether private addresses are allowed as destinations and as answers to lookups.
    pub fn with_private(mut self, destinations: bool, answers: bool) -> Self {
        let dispatcher = Arc::get_mut(&mut self.dispatcher).expect("no client yet");
        dispatcher.rules.allow_local = destinations;
        dispatcher.rules.allow_local_answers = answers;
        self
    }

    /// Sets the folder for client authorization keys.
    pub fn with_keys(mut self, folder: &Path) -> Self {
        let mistrust = fs_mistrust::Mistrust::new_dangerously_trust_everyone();
        self.client_auth_form = Arc::new(ClientAuthForm::new(Some(KeyFolder::new(
            folder.to_owned(),
            mistrust,
        ))));
        self
    }

    /// Returns the state that all ports share.
    pub fn shared(&self) -> &SharedState {
        &self.dispatcher.shared
    }

    /// Connects an HTTP client with this address; each direction buffers up to `capacity` bytes.
    pub fn http_client_with(&self, capacity: usize, address: ClientAddr) -> (Client, Served) {
        let (near, far) = duplex(capacity);
        let local = (Ipv4Addr::LOCALHOST, 9080).into();
        (Client::over(far), self.serve_http(near, address, local))
    }

    /// Connects an HTTP client from this computer.
    pub fn http_client(&self) -> (Client, Served) {
        self.http_client_with(1024, V4)
    }

    /// Connects a SOCKS client with this address; each direction buffers up to `capacity` bytes.
    pub fn client_with(&self, capacity: usize, address: ClientAddr) -> (Client, Served) {
        let (near, far) = duplex(capacity);
        let dispatcher = Arc::clone(&self.dispatcher);
        let serving = tokio::spawn(async move {
            serve(dispatcher, near, address).await;
        });
        (Client::over(far), Served(serving))
    }

    /// Connects a SOCKS client with this address.
    pub fn client(&self, address: ClientAddr) -> (Client, Served) {
        self.client_with(1024, address)
    }

    /// Connects a SOCKS client over TCP and returns its socket.
    pub async fn tcp_client(&self) -> (TcpStream, Served) {
        let (client, accepted) = connect_over_tcp().await;
        (client, self.serve(accepted))
    }

    /// Serves an accepted SOCKS connection.
    pub fn serve(&self, accepted: TcpStream) -> Served {
        let dispatcher = Arc::clone(&self.dispatcher);
        Served(tokio::spawn(async move {
            serve(dispatcher, accepted, V4).await;
        }))
    }

    /// Connects an HTTP client over TCP and returns its socket.
    pub async fn http_tcp_client(&self) -> (TcpStream, Served) {
        let (client, accepted) = connect_over_tcp().await;
        let local = accepted.local_addr().expect("a connected socket");
        (client, self.serve_http(accepted, V4, local))
    }

    fn serve_http<S>(&self, stream: S, address: ClientAddr, local: SocketAddr) -> Served
    where
        S: Connection + 'static,
    {
        let dispatcher = Arc::clone(&self.dispatcher);
        let client_auth_form = Arc::clone(&self.client_auth_form);
        Served(tokio::spawn(async move {
            let (_port, current) = watch::channel(dispatcher);
            http::serve(current, stream, address, Some(local), client_auth_form).await;
        }))
    }
}

/// Opens a TCP connection on this computer and returns its ends: the client's and the accepted one.
async fn connect_over_tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("listen on a free port");
    let address = listener.local_addr().expect("a bound socket");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connect"), accepted.expect("accept").0)
}

impl Served {
    /// Waits until the connection has been served to its end.
    pub async fn wait(self) {
        self.wait_within(LIMIT).await;
    }

    /// Like [`Served::wait`], but fails after `limit`.
    pub async fn wait_within(self, limit: Duration) {
        let ended = timeout(limit, self.0)
            .await
            .expect("the connection ends in time");
        ended.expect("the task does not panic");
    }

    /// Returns whether the connection has been served to its end.
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}
