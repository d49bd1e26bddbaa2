//! The real program, offline: how it starts, runs and stops.
//!
//! | module | shows |
//! |---|---|
//! | `ports` | which ports open, and which ones are errors |
//! | `output` | standard output or a log that is full or unread |
//! | `stop` | SIGTERM and SIGINT |
//! | `requests` | replies, deadlines and the address filter without a network |
//! | `command_line` | arguments, `--check-config`, and mistakes in the configuration file |
//! | `log` | what the log contains at each level |
//! | `key_folder` | the folder of client authorization keys |

use std::net::TcpListener;

use crate::support::client::{Client, ListenAddr};

mod command_line;
mod key_folder;
mod log;
mod output;
mod ports;
mod requests;
mod stop;

/// Asserts that the program answers clients of a SOCKS port: SOCKS4 RESOLVE of an IPv4 address needs
/// no network.
async fn assert_serves(place: &ListenAddr) {
    let mut client = Client::connect(place).await;
    client.send("04 f0 0000 01020304 00").await;
    client.expect("00 5a 0000 01020304").await;
    client.expect_end().await;
}

/// Whether the TCP port can be bound, or the Unix socket's file is gone.
fn is_free(place: &ListenAddr) -> bool {
    match place {
        ListenAddr::Ip(address) => TcpListener::bind(address).is_ok(),
        ListenAddr::Unix(path) => !path.exists(),
    }
}
