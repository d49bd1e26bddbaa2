//! The testbed: a private Tor network, an onion service, and the server behind it and behind the exits.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testnet::{Network, Service, ServiceOptions};
use tokio::runtime::Runtime;

use crate::client::Target;
use crate::options::Settings;
use crate::proxy::{Candidate, ExtraConfig, Proxy};
use crate::rows::Links;
use crate::server::Server;

/// Open files that the benchmark itself needs: both ends of 5,000 streams, and some more.
const MAX_OPEN_FILES: u64 = 12_000;

/// The virtual port of the onion service.
const SERVICE_PORT: u16 = 80;

/// A host name that the exits resolve to 127.0.0.1.
const EXIT_HOST: &str = "good.test";

/// A running network, and the targets that clients reach through it.
#[derive(Debug)]
pub struct Testbed {
    /// The size of each measurement.
    pub settings: Settings,
    /// The runtime of the clients and servers.
    pub runtime: Runtime,
    /// The server, reached through an exit.
    pub exit: Target,
    /// The server, reached through an onion service.
    pub onion: Target,
    /// The private network.
    pub network: Network,
    /// Contains the data folders of the programs.
    folder: TempDir,
    _service: Service,
    _server: Server,
}

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through an exit.
    Exit,
    /// Through an onion service.
    Onion,
}

impl Testbed {
    /// Starts the network, the server and the onion service.
    ///
    /// # Errors
    /// If the system's limit of open files is too low, or if anything does not start.
    pub fn start(settings: Settings, links: Links) -> Result<Testbed> {
        let limit = rlimit::increase_nofile_limit(MAX_OPEN_FILES)?;
        ensure!(
            limit >= MAX_OPEN_FILES,
            "the benchmark needs {MAX_OPEN_FILES} open files and the limit is {limit}: raise it with `ulimit -n`"
        );
        let runtime = Runtime::new()?;
        let network = Network::builder()
            .kist(settings.kist)
            .distance((links == Links::Far).then(|| settings.distance()))
            .start()?;
        // Failures appear in the report, so the network's logs need not be kept.
        network.mark_done();
        let server = runtime.block_on(Server::start())?;
        let service = network.service(ServiceOptions::with_port(SERVICE_PORT, server.address()))?;
        Ok(Testbed {
            settings,
            exit: Target::new(EXIT_HOST, server.address().port()),
            onion: Target::new(service.address(), SERVICE_PORT),
            folder: tempfile::tempdir_in(network.dir())?,
            runtime,
            network,
            _service: service,
            _server: server,
        })
    }

    /// Returns the target that is reached by this route.
    pub fn target(&self, route: Route) -> &Target {
        match route {
            Route::Exit => &self.exit,
            Route::Onion => &self.onion,
        }
    }

    /// Starts a program and gives it time to settle.
    ///
    /// Its data folder is kept from one start to the next, like that of a user who starts it every day.
    ///
    /// # Errors
    /// If it does not become usable.
    pub fn start_settled(&self, candidate: &Candidate) -> Result<Proxy> {
        let data_dir = candidate.data_dir(self.folder.path());
        let proxy = Proxy::start(candidate, &self.network, &data_dir, &ExtraConfig::default())?;
        std::thread::sleep(self.settings.settle());
        Ok(proxy)
    }

    /// Creates an empty temporary folder, which is removed when it is dropped.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn scratch_dir(&self) -> Result<ScratchDir> {
        ScratchDir::new(self.network.dir())
    }
}

/// A temporary folder, which is removed when it is dropped.
#[derive(Debug)]
pub struct ScratchDir(TempDir);

impl ScratchDir {
    /// Creates a folder in `parent`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new(parent: &Path) -> Result<ScratchDir> {
        tempfile::tempdir_in(parent)
            .map(ScratchDir)
            .with_context(|| format!("cannot create a folder in {}", parent.display()))
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Creates a folder in this one that only this user may access.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create_private(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.0.path().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}
