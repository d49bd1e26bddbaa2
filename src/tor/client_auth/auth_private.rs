//! The format of `.auth_private` files, parsed as by C tor (hs_client.c, `parse_auth_file_content`).
//!
//! A file has four fields separated by colons. White space around a field, including line breaks, is ignored,
//! and so is all but the first 56 characters of the first field. Whatever C tor rejects is an error here too,
//! except a UTF-8 byte order mark, which some editors add.

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

/// The extension of key files.
pub(super) const SUFFIX: &str = "auth_private";
/// The maximum size of a key file in bytes. A key takes 128.
pub(super) const MAX_FILE_LEN: usize = 4096;
/// The length of an onion address without `.onion`.
const LABEL_LEN: usize = 56;
/// The length of a key in base32.
const KEY_LEN: usize = 52;
/// UTF-8's byte order mark.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The secret key of an authorized client. It is wiped when dropped, and boxed because moving an array leaves
/// a copy behind.
pub(super) type ClientSecretKey = Box<Zeroizing<[u8; 32]>>;

/// The content of a key file, wiped when dropped.
pub(super) type KeyFileText = Zeroizing<Vec<u8>>;

/// C tor's base32. 52 characters have four bits more than a key; C tor ignores them.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE32_NOPAD.specification();
    specification.check_trailing_bits = false;
    // C tor accepts lower-case letters.
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

/// Why a key file is not used. No message repeats content of the file, which may contain a key.
#[derive(Debug, Error)]
pub(super) enum KeyFileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file; remove it")]
    NotRegularFile,
    #[error("it is a dangling symbolic link; correct or remove it")]
    DanglingLink,
    #[error("it is longer than {MAX_FILE_LEN} bytes; a key takes 128")]
    TooLong,
    #[error("it is empty")]
    Empty,
    #[error("it is UTF-16; save it as plain text or UTF-8")]
    Utf16,
    #[error("it contains more than one key; put each key into its own file")]
    SeveralKeys,
    #[error("{FORMAT}")]
    NotFourFields,
    #[error(
        "the onion address before the first colon is invalid; write its 56 characters, without http://"
    )]
    Address,
    #[error("the second and third fields must be `descriptor` and `x25519`, in lower case")]
    KindOrAlgorithm,
    #[error(
        "the text after the last colon is not a key of 52 characters, the letters A to Z and the digits \
         2 to 7; remove any = at its end and any comment"
    )]
    Key,
    #[error("the key is all zeros")]
    Zeros,
    #[error("another file contains a key for the same onion service")]
    Duplicate,
}

/// The error for a file without four fields.
const FORMAT: &str =
    "it is not of the form <56 characters>:descriptor:x25519:<52 characters of base32>";

/// Reads the key in a file.
pub(super) fn read_file(path: &Path) -> Result<(OnionAddress, ClientSecretKey), KeyFileError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => KeyFileError::DanglingLink,
        _ => KeyFileError::Io(error),
    })?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotRegularFile);
    }
    // O_NONBLOCK: if a pipe has replaced the file meanwhile, opening it must not wait for a writer.
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    parse(&read_text(file)?)
}

/// Reads the content of a key file.
pub(super) fn read_text(file: File) -> Result<KeyFileText, KeyFileError> {
    // Allocated at full size: a buffer that grows leaves copies behind.
    let mut text = KeyFileText::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut text)?;
    match text.len() > MAX_FILE_LEN {
        true => Err(KeyFileError::TooLong),
        false => Ok(text),
    }
}

/// Parses the content of a key file.
pub(super) fn parse(text: &[u8]) -> Result<(OnionAddress, ClientSecretKey), KeyFileError> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err(KeyFileError::Utf16);
    }
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    // C tor stops at the first zero byte.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if trim(text).is_empty() {
        return Err(KeyFileError::Empty);
    }
    let mut fields = text.split(|byte| *byte == b':').map(trim);
    let (Some(address), Some(kind), Some(algorithm), Some(key)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(KeyFileError::NotFourFields);
    };
    match fields.count() {
        0 => {}
        // The last field of a line merges with the first of the next: n + 1 keys have 4 + 3 * n fields.
        more if more % 3 == 0 && key.contains(&b'\n') => return Err(KeyFileError::SeveralKeys),
        _ => return Err(KeyFileError::NotFourFields),
    }
    let service = parse_label(address).ok_or(KeyFileError::Address)?;
    if (kind, algorithm) != (b"descriptor", b"x25519") {
        return Err(KeyFileError::KindOrAlgorithm);
    }
    Ok((service, decode_key(key)?))
}

/// Decodes a key in base32.
pub(super) fn decode_key(key: &[u8]) -> Result<ClientSecretKey, KeyFileError> {
    let mut secret = ClientSecretKey::default();
    let decoded = key.len() == KEY_LEN
        && BASE32
            .decode_mut(key, &mut secret[..])
            .is_ok_and(|length| length == secret.len());
    match decoded {
        false => Err(KeyFileError::Key),
        true if **secret == [0; 32] => Err(KeyFileError::Zeros),
        true => Ok(secret),
    }
}

/// Returns the content of a key file.
pub(super) fn format(service: &OnionAddress, secret: &ClientSecretKey) -> KeyFileText {
    let head = format!("{}:descriptor:x25519:", label(service));
    let mut text = KeyFileText::new(vec![0; head.len() + KEY_LEN + 1]);
    let (start, rest) = text.split_at_mut(head.len());
    let (key, end) = rest.split_at_mut(KEY_LEN);
    start.copy_from_slice(head.as_bytes());
    BASE32_NOPAD.encode_mut(&secret[..], key);
    end.fill(b'\n');
    text
}

/// Returns an onion address without `.onion`.
pub(super) fn label(service: &OnionAddress) -> String {
    let mut label = service.to_string();
    label.truncate(LABEL_LEN);
    label
}

/// Parses the first 56 characters as an onion address, as C tor does, whatever follows.
fn parse_label(address: &[u8]) -> Option<OnionAddress> {
    let label = str::from_utf8(address.get(..LABEL_LEN)?).ok()?;
    OnionAddress::parse(&format!("{label}.onion")).ok()
}

/// Removes C tor's white space from both ends.
fn trim(field: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let start = field.iter().position(|byte| !is_space(byte));
    let end = field.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => field.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}
