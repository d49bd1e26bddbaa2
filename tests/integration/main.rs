//! Tests that need no Tor network: bytes in and out, the imports between parts of the library, and the
//! documents.
//!
//! | module | shows |
//! |---|---|
//! | `connection` | a SOCKS connection from greeting to close, with a scripted network |
//! | `relay` | copying bytes both ways, and how a relay ends |
//! | `address_map` | mapped names and virtual addresses |
//! | `dns` | the DNS port, with a scripted network |
//! | `transparent` | redirected connections, with a scripted network |
//! | `wire` | the real program beside C tor: every vector of `tests/data/socks_vectors.txt` |
//! | `policy` | the real program beside C tor: which clients a policy admits |
//! | `daemon` | the real program: start, ports, errors, log, stop |
//! | `reload` | the real program on SIGHUP: what a reload changes, and what a failed one leaves alone |
//! | `storage` | the real program whose files are damaged, locked by another process, or have wrong permissions |
//! | `service_manager` | the real program under a service manager: inherited sockets, readiness, the port info file |
//! | `socket_activation` | the real program with inherited sockets, which stay open when their port lines change |
//! | `socket_folder` | the real program beside C tor: the folders in which a Unix socket may be |
//! | `vanished` | clients that vanish without closing their connections |
//! | `secrets` | the real program with passwords and keys, which no output may contain |
//! | `key_files` | client authorization key files in many forms, beside C tor |
//! | `import_cycles` | that no files of `src` import each other |
//! | `layers` | which part of `src` imports which |
//! | `documents` | links, anchors and paths in the documents, and the length of the README |
//! | `torrc` | the real program with C tor's configuration files |
//! | `surroundings` | the real program without a home folder, as root, and beside processes that try to read its memory |
//! | `http` | HTTP ports: tunnels, forwarded requests, pages, hostile clients and sites |
//! | `log_flood` | the log of the real program while clients repeat the same request |
//! | `hostile` | the real program with hostile or faulty SOCKS clients |
//!
//! The real program runs offline: its only directory is a closed port on loopback.

mod address_map;
mod connection;
mod daemon;
mod dns;
mod documents;
mod hostile;
mod http;
mod import_cycles;
mod key_files;
mod layers;
mod log_flood;
mod policy;
mod relay;
mod reload;
mod secrets;
mod service_manager;
mod socket_activation;
mod socket_folder;
mod storage;
mod support;
mod surroundings;
mod torrc;
mod transparent;
mod vanished;
mod wire;
