//! The format of a `.auth_private` file, read as C tor reads it (hs_client.c,
//! `parse_auth_file_content`).
//!
//! A file holds four fields with colons between them. White space around a field, line breaks
//! too, does not count; of the first field the first 56 characters do. What C tor does not take
//! is a mistake here too, but for a UTF-8 byte order mark, which editors add unasked.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

use data_encoding::{BASE32_NOPAD, Encoding};
use nix::fcntl::OFlag;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::tor::onion_address::OnionAddress;

/// The longest file that is read, in bytes. A key needs 128.
pub(super) const MAX_FILE_LEN: usize = 4096;
/// The length of an onion address without `.onion`.
const LABEL_LEN: usize = 56;
/// The length of a key in base32.
const KEY_LEN: usize = 52;
/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The secret key of an authorized client. Boxed, so that moving it leaves no copy behind; wiped
/// when it is dropped.
pub(super) type Secret = Box<Zeroizing<[u8; 32]>>;

/// The text of a key file, wiped when it is dropped.
pub(super) type Text = Zeroizing<Vec<u8>>;

/// C tor's base32: 52 characters have four bits more than a key, and these may be anything.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE32_NOPAD.specification();
    specification.check_trailing_bits = false;
    // Of lower-case letters C tor makes capitals.
    specification
        .translate
        .from
        .push_str("abcdefghijklmnopqrstuvwxyz");
    specification
        .translate
        .to
        .push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification.encoding().unwrap_or(BASE32_NOPAD)
});

/// Why a file gives no key. No message repeats anything of the file, which may hold a key.
#[derive(Debug, Error)]
pub(super) enum BadKeyFile {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file; remove it")]
    NotAFile,
    #[error("it is a link to a file that is not there; correct or remove it")]
    DeadLink,
    #[error("it is longer than {MAX_FILE_LEN} bytes, and a key needs 128")]
    TooLong,
    #[error("it is empty")]
    Empty,
    #[error("it is UTF-16; save it as plain text or UTF-8")]
    Utf16,
    #[error("it holds more than one key, and only one is read; give each a file of its own")]
    SeveralKeys,
    #[error("{FORM}")]
    NotFourFields,
    #[error(
        "the onion address before the first colon is wrong: write its 56 characters, without http://"
    )]
    Address,
    #[error("the second and third fields must be `descriptor` and `x25519`, in lower case")]
    KindOrAlgorithm,
    #[error(
        "behind the last colon is not a key of 52 characters, the letters A to Z and the digits 2 to 7, \
         without = at its end and without a comment"
    )]
    Key,
    #[error("the key is all zeros")]
    Zeros,
    #[error("another file holds a key for the same onion service")]
    Duplicate,
}

/// What a key file looks like.
const FORM: &str =
    "it is not of the form <56 characters>:descriptor:x25519:<52 characters of base32>";

/// Reads the key in a file.
pub(super) fn read_file(path: &Path) -> Result<(OnionAddress, Secret), BadKeyFile> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => BadKeyFile::DeadLink,
        _ => BadKeyFile::Io(error),
    })?;
    if !found.is_file() {
        return Err(BadKeyFile::NotAFile);
    }
    // Should a pipe have taken its place by now, nobody waits for somebody to write to it.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    parse(&read_text(file)?)
}

/// Reads a file to its end.
pub(super) fn read_text(file: File) -> Result<Text, BadKeyFile> {
    // The buffer never grows, which would leave a copy behind.
    let mut text = Text::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut text)?;
    match text.len() > MAX_FILE_LEN {
        true => Err(BadKeyFile::TooLong),
        false => Ok(text),
    }
}

/// Reads the text of a key file.
pub(super) fn parse(text: &[u8]) -> Result<(OnionAddress, Secret), BadKeyFile> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err(BadKeyFile::Utf16);
    }
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    // For C tor a text ends at its first zero byte.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if trim(text).is_empty() {
        return Err(BadKeyFile::Empty);
    }
    let mut fields = text.split(|byte| *byte == b':').map(trim);
    let (Some(address), Some(kind), Some(algorithm), Some(key)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(BadKeyFile::NotFourFields);
    };
    match fields.count() {
        0 => {}
        // The last field of one line and the first of the next make one: 4 + 3 * n fields.
        more if more % 3 == 0 && key.contains(&b'\n') => return Err(BadKeyFile::SeveralKeys),
        _ => return Err(BadKeyFile::NotFourFields),
    }
    let service = service(address).ok_or(BadKeyFile::Address)?;
    if (kind, algorithm) != (b"descriptor", b"x25519") {
        return Err(BadKeyFile::KindOrAlgorithm);
    }
    Ok((service, decode_key(key)?))
}

/// Reads a key in base32.
pub(super) fn decode_key(key: &[u8]) -> Result<Secret, BadKeyFile> {
    let mut secret = Secret::default();
    let decoded = key.len() == KEY_LEN
        && BASE32
            .decode_mut(key, &mut secret[..])
            .is_ok_and(|length| length == secret.len());
    match decoded {
        false => Err(BadKeyFile::Key),
        true if **secret == [0; 32] => Err(BadKeyFile::Zeros),
        true => Ok(secret),
    }
}

/// Writes the text of a key file.
pub(super) fn format(service: &OnionAddress, secret: &Secret) -> Text {
    let head = format!("{}:descriptor:x25519:", label(service));
    let mut text = Text::new(vec![0; head.len() + KEY_LEN + 1]);
    let (start, rest) = text.split_at_mut(head.len());
    let (key, end) = rest.split_at_mut(KEY_LEN);
    start.copy_from_slice(head.as_bytes());
    BASE32_NOPAD.encode_mut(&secret[..], key);
    end.fill(b'\n');
    text
}

/// An onion address without `.onion`.
pub(super) fn label(service: &OnionAddress) -> String {
    let mut label = service.to_string();
    label.truncate(LABEL_LEN);
    label
}

/// Reads an address as C tor copies it: the first 56 characters, whatever follows.
fn service(address: &[u8]) -> Option<OnionAddress> {
    let label = str::from_utf8(address.get(..LABEL_LEN)?).ok()?;
    OnionAddress::parse(&format!("{label}.onion")).ok()
}

/// Takes C tor's white space off both ends.
fn trim(field: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let start = field.iter().position(|byte| !is_space(byte));
    let end = field.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => field.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}
