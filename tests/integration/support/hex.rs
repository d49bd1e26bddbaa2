//! Bytes written in tests as hex, with spaces between fields.

/// Parses `05 01 00`; `61*255` is the byte 61 repeated 255 times.
pub fn bytes(fields: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for field in fields.split_whitespace() {
        let (hex, times) = field.split_once('*').unwrap_or((field, "1"));
        assert!(hex.len().is_multiple_of(2), "half a byte in {field}");
        let once: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex digits"))
            .collect();
        all.extend(once.repeat(times.parse().expect("a number")));
    }
    all
}

/// Formats bytes as hex, shortened if there are many.
pub fn show(bytes: &[u8]) -> String {
    const MAX_SHOWN: usize = 64;
    let hex: Vec<String> = bytes
        .iter()
        .take(MAX_SHOWN)
        .map(|b| format!("{b:02x}"))
        .collect();
    match bytes.len() {
        0 => "nothing".to_owned(),
        n if n > MAX_SHOWN => format!("{} … ({n} bytes)", hex.join(" ")),
        _ => hex.join(" "),
    }
}

/// Encodes a SOCKS5 request with a host name as its address.
pub fn socks5_request(command: u8, host: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(host.len()).expect("a short name");
    let head = [0x05, command, 0x00, 0x03, length];
    [&head[..], host.as_bytes(), &port.to_be_bytes()].concat()
}
