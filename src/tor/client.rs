//! arti's client: created, bootstrapped, replaced.
//!
//! Some problems cannot be fixed in a running client. A client that reads a damaged file never recovers, and
//! some of its parts never take up a new configuration (pluggable transports, the proxy to the relays, a
//! bridge stored with another address). A client is therefore replaced as a whole, while the ports stay
//! open and requests wait for the new one. Open streams continue: each holds its circuit.
//!
//! Read in this order: [`settings`] (what a client is made from), [`create`], [`bootstrap`], and [`slot`],
//! which replaces one client by another. Nothing here imports `backend`, `exit` or `onion`.

mod bootstrap;
mod create;
mod settings;
mod slot;

pub use bootstrap::BootstrapProgress;
pub(super) use create::ArtiClient;
pub use settings::ClientSettings;
pub(super) use slot::ClientSlot;
pub use slot::ReplaceError;
