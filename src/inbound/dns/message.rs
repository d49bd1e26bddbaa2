//! The messages of the DNS port (RFC 1035, section 4): questions in, answers out.
//!
//! What is understood and what is answered follows C tor, and the evdns of libevent beneath it: only
//! the header and the questions are read, whatever comes behind them (EDNS too) does not matter, and
//! neither does the opcode.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{
    BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder,
};

use crate::request::{Address, Answer, Command};
use crate::tor::destination::Family;

/// How long an answer is, at most: nobody was asked whether more would arrive (RFC 1035, 4.2.1).
const MAX_ANSWER_LEN: usize = 512;
/// How many questions of a message are read, at most. Resolvers ask one (RFC 9619), and a name that
/// points to an earlier one is two bytes to write and 127 labels to read: what a datagram has room
/// for would keep the port busy. A message with more gets FORMERR, if those can be read.
const MAX_QUESTIONS: u16 = 16;
/// How long a name is at most, in bytes (RFC 1035, 2.3.4).
const MAX_NAME_LEN: usize = 255;
/// Seconds that an answer may be kept. C tor's least; relays' own numbers are not told here.
const TTL: u32 = 60;

/// A message with questions, as a client sent it.
#[derive(Debug)]
pub(super) struct Questions {
    header: Header,
    /// Those that were read; none of too many.
    all: Vec<Query>,
    /// Which of them is answered.
    chosen: Option<usize>,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Which way to look.
    pub(super) command: Command,
    /// What to look up.
    pub(super) address: Address,
    /// Which addresses would be an answer.
    pub(super) family: Option<Family>,
}

impl Questions {
    /// Reads a datagram; `None` if it asks nothing that can be understood. Such a datagram gets no
    /// answer, as in C tor: it may be an answer itself, sent to start two servers talking.
    pub(super) fn read(datagram: &[u8]) -> Option<Questions> {
        let mut decoder = BinDecoder::new(datagram);
        let header = Header::read(&mut decoder).ok()?;
        if header.message_type != MessageType::Query || header.counts.queries == 0 {
            return None;
        }
        let count = header.counts.queries;
        let mut all = Message::read_queries(&mut decoder, count.min(MAX_QUESTIONS).into()).ok()?;
        if count > MAX_QUESTIONS {
            all.clear();
        }
        // The first that can be answered counts, as in C tor.
        let chosen = all.iter().position(|query| {
            query.query_class() == DNSClass::IN
                && matches!(
                    query.query_type(),
                    RecordType::A | RecordType::AAAA | RecordType::PTR
                )
        });
        Some(Questions {
            header,
            all,
            chosen,
        })
    }

    /// The question to be answered, or what to say instead.
    pub(super) fn question(&self) -> Result<Question, ResponseCode> {
        if self.all.is_empty() {
            return Err(ResponseCode::FormErr);
        }
        let query = self.query().ok_or(ResponseCode::NotImp)?;
        let name = text(query.name()).ok_or(ResponseCode::ServFail)?;
        let of_name = |family| Question {
            command: Command::Resolve,
            address: match name.parse() {
                Ok(ip) => Address::Ip(ip),
                Err(_) => Address::Name(name.clone().into_boxed_str()),
            },
            family: Some(family),
        };
        match query.query_type() {
            RecordType::A => Ok(of_name(Family::V4Only)),
            RecordType::AAAA => Ok(of_name(Family::V6Only)),
            _ => Ok(Question {
                command: Command::ResolvePtr,
                address: Address::Ip(reversed(&name).ok_or(ResponseCode::ServFail)?),
                family: None,
            }),
        }
    }

    /// A message that has found out nothing, or that there is nothing: `NoError` with no answer.
    pub(super) fn refuse(&self, code: ResponseCode) -> Vec<u8> {
        self.write(code, None)
    }

    /// A message with the answer. Its owner is the name in the client's own spelling, which may be
    /// a riddle against forged answers.
    pub(super) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let data = match (self.query().map(Query::query_type), answer) {
            (Some(RecordType::A), Answer::Ip(IpAddr::V4(ip))) => Some(RData::A((*ip).into())),
            (Some(RecordType::AAAA), Answer::Ip(IpAddr::V6(ip))) => Some(RData::AAAA((*ip).into())),
            (Some(RecordType::PTR), Answer::Name(name)) => match labels(name) {
                Some(name) => Some(RData::PTR(PTR(name))),
                // No name that could stand in a message.
                None => return self.refuse(ResponseCode::ServFail),
            },
            // Of another kind than was asked for.
            _ => None,
        };
        self.write(ResponseCode::NoError, data)
    }

    fn query(&self) -> Option<&Query> {
        self.all.get(self.chosen?)
    }

    /// The message as far as it fits: without the answer, if need be, and then with one question
    /// alone. Whoever sends the questions chooses how long this takes, so there are few attempts.
    fn write(&self, code: ResponseCode, data: Option<RData>) -> Vec<u8> {
        let mut message = Message::response(self.header.id, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.metadata.response_code = code;
        // Too many to be read are too many to be written.
        message.metadata.truncation = self.all.is_empty();
        message.add_queries(self.all.iter().cloned());
        if let (Some(query), Some(data)) = (self.query(), data) {
            message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
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
        // One always fits: a name is no longer than 255 bytes.
        let shown = self.query().or(self.all.first());
        message.queries = shown.into_iter().cloned().collect();
        encode(&message).unwrap_or_default()
    }
}

/// A message as bytes; `None` if they are too many, and then without having written all of it.
fn encode(message: &Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX_ANSWER_LEN + MAX_NAME_LEN);
    let mut encoder = BinEncoder::new(&mut bytes);
    // A name is written in full before it becomes a pointer.
    encoder.set_max_size(u16::try_from(MAX_ANSWER_LEN + MAX_NAME_LEN).ok()?);
    message.emit(&mut encoder).ok()?;
    (bytes.len() <= MAX_ANSWER_LEN).then_some(bytes)
}

/// A name as text, without a dot at its end; `None` if it is no host name.
fn text(name: &Name) -> Option<String> {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let mut text = String::new();
    for label in name.iter() {
        if !label.iter().all(fits) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|&b| char::from(b)));
    }
    Some(text)
}

/// A name of text, whatever characters an exit has put in it; `None` if it is too long.
fn labels(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = Name::from_labels(text.split('.').map(str::as_bytes)).ok()?;
    (!name.is_root()).then_some(name)
}

/// The address in a name such as `1.2.0.192.in-addr.arpa` (RFC 1035, 3.5; RFC 3596, 2.5), or one
/// written out, which C tor takes too.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Ok(ip) = name.parse() {
        return Some(ip);
    }
    let name = name.to_ascii_lowercase();
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let forwards: Vec<&str> = octets.split('.').rev().collect();
        let ip: Ipv4Addr = forwards.join(".").parse().ok()?;
        return Some(ip.into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut count) = (0u128, 0);
    for digit in digits.split('.').rev() {
        let &[digit] = digit.as_bytes() else {
            return None;
        };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests;
