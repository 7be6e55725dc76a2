//! `encx inspect`: shows what a ciphertext says without its key.

use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use encx::Ciphertext;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{Output, pairs, tell};
use crate::record::KeyView;
use crate::session::Session;

const NO_CIPHERTEXT: &str = "this is no ciphertext of encx";

/// Length of the largest ciphertext in hex with a prefix.
const MAX_INPUT: u64 = 2 * (64 << 20) + 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ciphertext as base64 or hex (also `\x..` or `X'..'`), a file that contains it, or `-` for stdin
    #[arg(value_name = "BASE64|HEX|FILE|-")]
    ciphertext: String,
    /// Look up its key in the key store: state, encryption context, KEKs
    #[arg(long)]
    pub(crate) resolve: bool,
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

/// Inspects a ciphertext and looks up its key.
pub(crate) async fn resolve(session: &Session, args: &Args) -> Result<Exit> {
    let id = read(&args.ciphertext)?.key_id();
    let mut records = session.store().await?.get(&[id]).await?;
    let key = records.pop().map(|record| KeyView::new(&record, None));
    let is_known = key.is_some();
    run(session.output, args, key)?;
    if is_known {
        return Ok(Exit::Done);
    }
    tell("the key store has no such key: the value belongs to another database, or to none");
    Ok(Exit::Finding)
}

/// Inspects a ciphertext. Needs no settings and no server.
pub(crate) fn run(output: Output, args: &Args, key: Option<KeyView>) -> Result<Exit> {
    let ciphertext = read(&args.ciphertext)?;
    let view = View {
        suite: format!("{:?}", ciphertext.suite()),
        key_id: ciphertext.key_id().to_string(),
        key_made_at: made_at(ciphertext.key_id().unix_millis()),
        plaintext_bytes: ciphertext.plaintext_len(),
        bytes: ciphertext.as_bytes().len(),
        key,
    };
    output.object(&view, || {
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
    Ok(Exit::Done)
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

/// Reads a ciphertext from stdin, from the argument itself, or from a file of that name.
fn read(given: &str) -> Result<Ciphertext> {
    if given == "-" {
        return read_from(io::stdin().lock(), "stdin");
    }
    // A file's name may be valid hex or base64.
    let of_text = parse(given).map(Ciphertext::parse);
    if let Some(Ok(ciphertext)) = of_text {
        return Ok(ciphertext);
    }
    match (std::fs::File::open(given), of_text) {
        (Ok(file), _) => read_from(file, given),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`{given}` is neither base64 nor hex, and no file has this name")
        }
        (Err(error), Some(Err(refused))) if error.kind() == io::ErrorKind::NotFound => {
            Err(refused).context(NO_CIPHERTEXT)
        }
        (Err(error), _) => Err(error).with_context(|| format!("could not read {given}")),
    }
}

fn read_from(reader: impl Read, name: &str) -> Result<Ciphertext> {
    let mut bytes = Vec::new();
    let len = reader
        .take(MAX_INPUT + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("could not read {name}"))?;
    if u64::try_from(len).is_ok_and(|len| len > MAX_INPUT) {
        bail!("{name} is longer than any ciphertext");
    }
    // Text is decoded; other bytes are the ciphertext itself.
    let decoded = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| parse(text.trim()));
    Ciphertext::parse(decoded.unwrap_or(bytes)).context(NO_CIPHERTEXT)
}

/// Parses hex as databases write it, or base64. Tries hex first: a ciphertext in hex starts with `0101`, which as
/// base64 does not decode to a ciphertext.
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
    }
}
