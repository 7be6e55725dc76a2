//! `encx inspect`: what a ciphertext says without its key.

use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use encx::Ciphertext;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::pairs;
use crate::record::KeyView;
use crate::session::Session;

/// A ciphertext of the largest value, as hex with a prefix.
const MAX_INPUT: u64 = 2 * (64 << 20) + 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ciphertext as base64 or hex (also as `\x..` or `X'..'`), a file of it, or `-` for stdin
    #[arg(value_name = "BASE64|HEX|FILE|-")]
    ciphertext: String,
    /// Look its key up in the key store: state, encryption context, KEKs
    #[arg(long)]
    resolve: bool,
}

#[derive(Debug, Serialize)]
struct View {
    suite: String,
    key_id: String,
    key_made_at: String,
    plaintext_bytes: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyView>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Result<Exit> {
    let bytes = read(&args.ciphertext)?;
    let len = bytes.len();
    let ciphertext = Ciphertext::parse(bytes).context("this is no ciphertext of encx")?;
    let id = ciphertext.key_id();
    let mut view = View {
        suite: format!("{:?}", ciphertext.suite()),
        key_id: id.to_string(),
        // 48 bits of milliseconds: before the year 10000, which it is compared with all the same.
        key_made_at: made_at(id.unix_millis()),
        plaintext_bytes: ciphertext.plaintext_len(),
        bytes: len,
        key: None,
    };
    let mut exit = Exit::Done;
    if args.resolve {
        let records = session.store().await?.get(&[id]).await?;
        match records.first() {
            Some(record) => view.key = Some(KeyView::new(record, None)),
            None => {
                crate::output::tell(
                    "the key store has no such key: the value belongs to another database, or to none",
                );
                exit = Exit::Finding;
            }
        }
    }
    session.output.object(&view, || {
        let mut lines = vec![
            ("suite", view.suite.clone()),
            ("key", view.key_id.clone()),
            ("key made at", view.key_made_at.clone()),
            ("plaintext", format!("{} bytes", view.plaintext_bytes)),
            ("ciphertext", format!("{} bytes", view.bytes)),
        ];
        if let Some(key) = &view.key {
            lines.extend([
                ("usage", key.usage.to_owned()),
                ("version", key.version.to_string()),
                ("state", key.state.to_owned()),
                ("context", key.context()),
                ("KEKs", key.keks()),
            ]);
        }
        pairs(lines)
    })?;
    Ok(exit)
}

fn made_at(unix_millis: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800_000;
    match unix_millis {
        0..YEAR_10000 => {
            let at = UNIX_EPOCH + Duration::from_millis(unix_millis);
            humantime::format_rfc3339_seconds(at).to_string()
        }
        _ => format!("{unix_millis} ms"),
    }
}

/// Reads a ciphertext: from stdin, from a file that is there, or from the text itself.
fn read(given: &str) -> Result<Vec<u8>> {
    if given == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().take(MAX_INPUT).read_to_end(&mut bytes)?;
        return Ok(decoded(bytes));
    }
    if let Some(bytes) = parse(given) {
        return Ok(bytes);
    }
    match std::fs::File::open(given) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_INPUT)
                .read_to_end(&mut bytes)
                .with_context(|| format!("could not read {given}"))?;
            Ok(decoded(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`{given}` is neither base64 nor hex, and no file has this name")
        }
        Err(error) => Err(error).with_context(|| format!("could not read {given}")),
    }
}

/// Decodes text; what is not text is the ciphertext itself.
fn decoded(bytes: Vec<u8>) -> Vec<u8> {
    match std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| parse(text.trim()))
    {
        Some(decoded) => decoded,
        None => bytes,
    }
}

/// Parses hex as databases write it, or base64. Hex goes first: a ciphertext in hex begins `0101`, and what that is as base64 is no
/// ciphertext.
fn parse(text: &str) -> Option<Vec<u8>> {
    let hex = text
        .strip_prefix("\\x")
        .or_else(|| text.strip_prefix("0x"))
        .or_else(|| {
            text.strip_prefix("X'")
                .or_else(|| text.strip_prefix("x'"))?
                .strip_suffix('\'')
        })
        .unwrap_or(text);
    if let Some(bytes) = parse_hex(hex) {
        return Some(bytes);
    }
    [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())
        .filter(|bytes| bytes.len() >= 2)
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    digits
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_which_databases_write_bytes_is_read() {
        for text in [
            "01ff", "\\x01ff", "0x01FF", "X'01FF'", "x'01ff'", "Af8=", "Af8", "Af8",
        ] {
            assert_eq!(parse(text), Some(vec![1, 255]), "{text}");
        }
        assert_eq!(parse("no such.file"), None);
        assert_eq!(decoded(vec![1, 1, 255]), [1, 1, 255]);
        assert_eq!(decoded(b"\\x01ff\n".to_vec()), [1, 255]);
    }
}
