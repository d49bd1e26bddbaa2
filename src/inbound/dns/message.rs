//! DNS messages (RFC 1035, section 4): parses queries, builds replies.
//!
//! Follows C tor and libevent's evdns: only the header and the questions are read. Everything behind
//! them, EDNS included, is ignored, and so is the opcode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder,
};

use crate::request::{Address, Answer, Command};
use crate::tor::destination::Family;

/// The longest reply, in bytes: without EDNS a client takes no more over UDP (RFC 1035, 4.2.1).
const MAX_REPLY_LEN: usize = 512;
/// How many questions of a query are read; a query with more gets FORMERR if its first 16 questions can
/// be read.
///
/// Resolvers send one (RFC 9619). A name that points to an earlier one takes two bytes to write and up
/// to 127 labels to read, so a datagram full of them would keep the port busy.
const MAX_QUESTIONS: u16 = 16;
/// The longest name, in bytes (RFC 1035, 2.3.4).
const MAX_NAME_LEN: usize = 255;
/// The TTL of answers, in seconds: C tor's minimum. The TTLs that relays report are not available here.
const TTL: u32 = 60;

/// A query as a client sent it: a header and questions, of which at most one is
/// answered.
#[derive(Debug)]
pub(super) struct DnsQuery {
    header: Header,
    /// The questions; empty if there are more than [`MAX_QUESTIONS`].
    questions: Vec<Query>,
    /// The index of the question to answer, if one is of a type that is supported.
    chosen: Option<usize>,
}

/// The lookup that answers a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DnsLookup {
    pub(super) command: Command,
    pub(super) address: Address,
    /// The address family to look up; `None` for PTR.
    pub(super) family: Option<Family>,
}

impl DnsQuery {
    /// Parses a datagram. Returns `None` if it is not a well-formed query. As in C tor, such a datagram
    /// gets no reply: it may be a reply itself, forged to make two servers answer each other.
    pub(super) fn parse(datagram: &[u8]) -> Option<DnsQuery> {
        let mut decoder = BinDecoder::new(datagram);
        let header = Header::read(&mut decoder).ok()?;
        if header.message_type != MessageType::Query || header.counts.queries == 0 {
            return None;
        }
        let count = header.counts.queries;
        let mut questions =
            Message::read_queries(&mut decoder, count.min(MAX_QUESTIONS).into()).ok()?;
        if count > MAX_QUESTIONS {
            questions.clear();
        }
        // As in C tor, the first that can be answered.
        let chosen = questions.iter().position(|question| {
            question.query_class() == DNSClass::IN
                && matches!(
                    question.query_type(),
                    RecordType::A | RecordType::AAAA | RecordType::PTR
                )
        });
        Some(DnsQuery {
            header,
            questions,
            chosen,
        })
    }

    /// Returns the lookup to perform.
    ///
    /// # Errors
    /// The response code of a query that cannot be looked up.
    pub(super) fn lookup(&self) -> Result<DnsLookup, ResponseCode> {
        if self.questions.is_empty() {
            return Err(ResponseCode::FormErr);
        }
        let question = self.chosen_question().ok_or(ResponseCode::NotImp)?;
        let name = host_name(question.name()).ok_or(ResponseCode::ServFail)?;
        let resolve = |family| DnsLookup {
            command: Command::Resolve,
            address: match name.parse() {
                Ok(ip) => Address::Ip(ip),
                Err(_) => Address::Name(name.clone().into_boxed_str()),
            },
            family: Some(family),
        };
        match question.query_type() {
            RecordType::A => Ok(resolve(Family::V4Only)),
            RecordType::AAAA => Ok(resolve(Family::V6Only)),
            _ => Ok(DnsLookup {
                command: Command::ResolvePtr,
                address: Address::Ip(parse_reverse_name(&name).ok_or(ResponseCode::ServFail)?),
                family: None,
            }),
        }
    }

    /// Builds a reply without an answer. With `NoError` it means that the name has no such record.
    pub(super) fn refuse(&self, code: ResponseCode) -> Vec<u8> {
        self.build(code, None)
    }

    /// Builds the reply with the answer of a lookup.
    ///
    /// The answer's owner name repeats the question's spelling, which clients vary at random to detect
    /// forged replies.
    pub(super) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let data = match (self.chosen_question().map(Query::query_type), answer) {
            (Some(RecordType::A), Answer::Ip(IpAddr::V4(ip))) => Some(RData::A((*ip).into())),
            (Some(RecordType::AAAA), Answer::Ip(IpAddr::V6(ip))) => Some(RData::AAAA((*ip).into())),
            (Some(RecordType::PTR), Answer::Name(name)) => match dns_name(name) {
                Some(name) => Some(RData::PTR(PTR(name))),
                // The exit's name does not fit into a message.
                None => return self.refuse(ResponseCode::ServFail),
            },
            // Not of the type in question.
            _ => None,
        };
        self.build(ResponseCode::NoError, data)
    }

    fn chosen_question(&self) -> Option<&Query> {
        self.questions.get(self.chosen?)
    }

    /// Builds the reply. If it is too long, drops the answer, then all questions but one. At most three
    /// attempts: the client chooses the questions, and so how long each takes.
    fn build(&self, code: ResponseCode, data: Option<RData>) -> Vec<u8> {
        let mut message = Message::response(self.header.id, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.metadata.response_code = code;
        // More than `MAX_QUESTIONS` are not repeated in the reply.
        message.metadata.truncation = self.questions.is_empty();
        message.add_queries(self.questions.iter().cloned());
        if let (Some(question), Some(data)) = (self.chosen_question(), data) {
            message.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
            if let Some(bytes) = encode(&message) {
                return bytes;
            }
            message.answers.clear();
            message.metadata.truncation = true;
        }
        if let Some(bytes) = encode(&message) {
            return bytes;
        }
        message.metadata.truncation = true;
        // One question always fits, with its name of at most 255 bytes.
        let kept = self.chosen_question().or(self.questions.first());
        message.queries = kept.into_iter().cloned().collect();
        encode(&message).unwrap_or_default()
    }
}

/// Encodes a message. Returns `None` if it is longer than [`MAX_REPLY_LEN`], without encoding much more
/// than that.
fn encode(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX_REPLY_LEN + MAX_NAME_LEN);
    let mut encoder = BinEncoder::new(&mut bytes);
    // The encoder writes a name in full before it replaces it by a pointer.
    encoder.set_max_size(u16::try_from(MAX_REPLY_LEN + MAX_NAME_LEN).ok()?);
    message.emit(&mut encoder).ok()?;
    (bytes.len() <= MAX_REPLY_LEN).then_some(bytes)
}

/// Converts a DNS name to text, without a dot at the end. Returns `None` if it is not a host name.
fn host_name(name: &Name) -> Option<String> {
    let is_allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let mut text = String::new();
    for label in name.iter() {
        if !label.iter().all(is_allowed) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|&b| char::from(b)));
    }
    Some(text)
}

/// Converts text to a DNS name, whatever characters an exit has put in it. Returns `None` if it, or one
/// of its labels, is empty or too long.
fn dns_name(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    (!name.is_root()).then_some(name)
}

/// Returns the address that a name such as `1.2.0.192.in-addr.arpa` stands for (RFC 1035, 3.5; RFC 3596,
/// 2.5). Like C tor, also takes an address written out.
fn parse_reverse_name(name: &str) -> Option<IpAddr> {
    if let Ok(ip) = name.parse() {
        return Some(ip);
    }
    let name = name.to_ascii_lowercase();
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<&str> = octets.split('.').rev().collect();
        let ip: Ipv4Addr = octets.join(".").parse().ok()?;
        return Some(ip.into());
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut count) = (0u128, 0);
    for nibble in nibbles.split('.').rev() {
        let &[nibble] = nibble.as_bytes() else {
            return None;
        };
        bits = bits << 4 | u128::from(char::from(nibble).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests;
