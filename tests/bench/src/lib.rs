//! Measures onionport beside C tor, and beside arti where there is one, on private Tor networks.
//!
//! `scripts/bench` builds and runs it; `docs/performance.md` says what is measured and how to read it.
//!
//! The programs take turns: in each round, each group of rows is measured with each program, one
//! program running at a time, and who comes first changes from round to round. So whatever drifts on
//! the machine hits all of them alike. What is reported is the median over the rounds.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | what the user asked for, and how much of everything a run takes |
//! | [`catalog`] | every row: its name, title and unit |
//! | [`world`] | a network, the onion service, the folders |
//! | [`server`], [`client`] | what stands behind exits and service; who asks the proxies |
//! | [`proxy`] | a running program under measurement, and what it uses |
//! | [`rows`] | the measurements, a file for each group |
//! | [`record`], [`stats`] | what was measured, run by run; percentiles |
//! | [`report`] | medians, ratios, the table, the JSON file, the plot |
//! | [`machine`] | where it was measured |

#![forbid(unsafe_code)]

pub mod catalog;
pub mod client;
pub mod machine;
pub mod options;
pub mod proxy;
pub mod record;
pub mod report;
pub mod rows;
pub mod server;
pub mod stats;
pub mod world;
