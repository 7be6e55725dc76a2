//! Values as JSON.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use super::{CodecError, Encoded};

/// What a manifest calls these bytes.
pub const FORMAT: &str = "json";

/// Writes a value as JSON.
///
/// # Errors
///
/// [`CodecError::Json`].
pub fn encode<T: Serialize>(value: &T) -> Result<Encoded<'static>, CodecError> {
    let mut written = Wiped(Zeroizing::new(Vec::new()));
    serde_json::to_writer(&mut written, value).map_err(|error| redacted("written as", &error))?;
    Ok(Encoded::owned(std::mem::take(&mut *written.0)))
}

/// Reads a value from JSON.
///
/// # Errors
///
/// [`CodecError::Json`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    serde_json::from_slice(bytes).map_err(|error| redacted("read from", &error))
}

/// Keeps where the fault is and of which kind. The message may quote the value.
fn redacted(direction: &'static str, error: &serde_json::Error) -> CodecError {
    CodecError::Json {
        direction,
        line: error.line(),
        column: error.column(),
        what: match error.classify() {
            serde_json::error::Category::Data => "it does not fit the type; was the type changed?",
            serde_json::error::Category::Eof => "it ends early",
            serde_json::error::Category::Io => "no memory",
            serde_json::error::Category::Syntax => "it is no JSON",
        },
    }
}

/// A buffer that leaves nothing behind where it lay before it grew.
struct Wiped(Zeroizing<Vec<u8>>);

impl io::Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()).max(64) * 2);
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            *self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
