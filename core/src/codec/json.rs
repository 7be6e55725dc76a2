//! Values as JSON, written only if they can be read back.

mod readable;

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use self::readable::{Readable, Unreadable};
use super::{CodecError, Encoded};

/// The name of this encoding in manifests.
pub const FORMAT: &str = "json";

/// Writes a value as JSON, and reads it back once to check that it can be read.
///
/// Reading costs about as much as writing. It catches values that serde attributes or hand-written impls make unreadable.
/// It does not check that the value read is equal.
///
/// # Errors
///
/// [`CodecError::Unreadable`] if it could not be read back, [`CodecError::Json`] if it cannot be written.
pub fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Encoded<'static>, CodecError> {
    let unreadable = |what| CodecError::Unreadable { what };
    match Readable::check(value) {
        Ok(()) | Err(Unreadable::Failed) => {}
        Err(Unreadable::Float) => {
            return Err(unreadable(
                "JSON has no NaN and no infinity; keep such a float as an `Option` or a text",
            ));
        }
        Err(Unreadable::SomeOfNothing) => {
            return Err(unreadable(
                "`Some(None)` and `Some(())` would read back as `None`; use an enum instead",
            ));
        }
    }
    let mut written = Wiped(Zeroizing::new(Vec::new()));
    serde_json::to_writer(&mut written, value).map_err(|error| redacted("written as", &error))?;
    if decode::<T>(&written.0).is_err() {
        return Err(unreadable(
            "its `Deserialize` refuses what its `Serialize` wrote; does a field with `skip_serializing_if` lack `default`, \
             or does `rename` name one direction only?",
        ));
    }
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

/// Keeps the position and the kind of the fault. The message may quote the value.
fn redacted(direction: &'static str, error: &serde_json::Error) -> CodecError {
    CodecError::Json {
        direction,
        line: error.line(),
        column: error.column(),
        what: match error.classify() {
            serde_json::error::Category::Data => "it does not fit the type; was the type changed?",
            serde_json::error::Category::Eof => "it ends early",
            serde_json::error::Category::Io => "no memory",
            serde_json::error::Category::Syntax => "it is not JSON",
        },
    }
}

/// A buffer that wipes its old memory when it grows.
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

#[cfg(test)]
mod tests;
