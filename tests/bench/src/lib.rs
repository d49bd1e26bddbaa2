//! Compares the performance of onionport, C tor and, if its binary is given, arti on private Tor
//! networks.
//!
//! `scripts/bench` builds and runs it; `docs/performance.md` explains what it measures and how to read
//! the results.
//!
//! The programs take turns: in each round, each group of rows is measured with each program, one
//! program at a time, and the order of the programs changes from round to round. A drift of the machine
//! therefore affects all programs alike. The report contains medians over the rounds.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the command line, and the size of each measurement |
//! | [`catalog`] | all rows of the table: name, title and unit |
//! | [`testbed`] | a private network, an onion service, and the folders of the programs |
//! | [`server`] | the server behind the exits and the onion service |
//! | [`client`] | SOCKS5 clients |
//! | [`proxy`] | a running program under test, and its resource usage |
//! | [`rows`] | the measurements, one file for each group of rows |
//! | [`results`], [`stats`] | the results of all runs; medians and percentiles |
//! | [`report`] | medians, ratios, the table, the JSON file, the plot |
//! | [`machine`] | the computer, and the versions of the programs |

#![forbid(unsafe_code)]

pub mod catalog;
pub mod client;
pub mod machine;
pub mod options;
pub mod proxy;
pub mod report;
pub mod results;
pub mod rows;
pub mod server;
pub mod stats;
pub mod testbed;
