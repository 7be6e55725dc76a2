//! The searched process, the needles, and the search.

pub(crate) mod child;
pub(crate) mod kek_file;
pub(crate) mod needles;
pub(crate) mod scan;

/// Secrets that must not be in the other process's memory are masked on its pipes.
pub(crate) const MASK: u8 = 0x5a;

pub(crate) fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
