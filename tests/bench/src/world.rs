//! What the programs are measured in: a private Tor network, an onion service, and servers behind it
//! and behind the exits.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use testnet::{Network, Service, ServiceOptions};
use tokio::runtime::Runtime;

use crate::client::Target;
use crate::options::Amounts;
use crate::proxy::{Candidate, Proxy, Setup};
use crate::rows::Links;
use crate::server::Server;

/// Open files that this program needs at the most: both ends of 5,000 streams, and some.
const FILES: u64 = 12_000;

/// The virtual port of the onion service.
const SERVICE_PORT: u16 = 80;

/// The exits look it up as 127.0.0.1.
const EXIT_HOST: &str = "good.test";

/// The network, and what is reached through it.
#[derive(Debug)]
pub struct World {
    /// How much of everything to take.
    pub amounts: Amounts,
    /// Runs clients and servers.
    pub runtime: Runtime,
    /// Through an exit.
    pub exit: Target,
    /// An onion service.
    pub onion: Target,
    /// The private network.
    pub network: Network,
    /// Keeps the folders of the programs.
    folder: TempDir,
    _service: Service,
    _server: Server,
}

/// The two ways to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through an exit.
    Exit,
    /// Through an onion service.
    Onion,
}

impl World {
    /// Starts the network, and all that programs connect to.
    ///
    /// # Errors
    /// When the system allows too few open files, or something does not start.
    pub fn start(amounts: Amounts, links: Links) -> Result<World> {
        let files = rlimit::increase_nofile_limit(FILES)?;
        anyhow::ensure!(
            files >= FILES,
            "{FILES} open files are needed and {files} allowed: raise the limit, see ulimit -n"
        );
        let runtime = Runtime::new()?;
        let network = Network::builder()
            .kist(amounts.kist)
            .distance((links == Links::Far).then(|| amounts.distance()))
            .start()?;
        // What fails becomes a row of the report.
        network.mark_done();
        let server = runtime.block_on(Server::start())?;
        let service = network.service(ServiceOptions::with_port(SERVICE_PORT, server.address()))?;
        Ok(World {
            amounts,
            exit: Target::new(EXIT_HOST, server.address().port()),
            onion: Target::new(service.address(), SERVICE_PORT),
            folder: tempfile::tempdir_in(network.dir())?,
            runtime,
            network,
            _service: service,
            _server: server,
        })
    }

    /// Where to connect to on a way.
    pub fn target(&self, way: Way) -> &Target {
        match way {
            Way::Exit => &self.exit,
            Way::Onion => &self.onion,
        }
    }

    /// Starts a program that has run before, as one does that is started every day: its folder is
    /// kept from one start to the next. Gives it time to settle.
    ///
    /// # Errors
    /// When it does not become usable.
    pub fn start_settled(&self, candidate: &Candidate) -> Result<Proxy> {
        let home = candidate.home(self.folder.path());
        let proxy = Proxy::start(candidate, &self.network, &home, &Setup::default())?;
        std::thread::sleep(self.amounts.settle());
        Ok(proxy)
    }

    /// An empty folder that goes when it is dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn empty_home(&self) -> Result<Home> {
        Home::new(self.network.dir())
    }
}

/// A folder for a program's files that goes when it is dropped.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// Makes one within a folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(within: &Path) -> Result<Home> {
        tempfile::tempdir_in(within)
            .map(Home)
            .context("cannot make a folder")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A folder within, made with access for us alone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn private(&self, name: &str) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.0.path().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}
