//! `Serialize` and `Deserialize`: bytes are standard base64 in human-readable formats and bytes in others; a password's
//! hash is text.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::blind_index::BlindIndex;
use crate::ciphertext::{Ciphertext, MAX_PLAINTEXT_LEN, Suite};

/// A type that serialises as bytes.
trait Bytes: Sized {
    const NAME: &'static str;
    const MAX_LEN: usize;

    fn parse(bytes: Vec<u8>) -> Result<Self, impl fmt::Display>;
}

impl Bytes for Ciphertext {
    const NAME: &'static str = "a ciphertext";
    const MAX_LEN: usize = Suite::KcXaes256Gcm.overhead() + MAX_PLAINTEXT_LEN;

    fn parse(bytes: Vec<u8>) -> Result<Self, impl fmt::Display> {
        Self::parse(bytes)
    }
}

impl Bytes for BlindIndex {
    const NAME: &'static str = "a blind index";
    const MAX_LEN: usize = Self::MAX_LEN;

    fn parse(bytes: Vec<u8>) -> Result<Self, impl fmt::Display> {
        Self::parse(bytes)
    }
}

fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&STANDARD.encode(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

fn deserialize<'de, T: Bytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_str(FromBase64(PhantomData))
    } else {
        deserializer.deserialize_byte_buf(FromBytes(PhantomData))
    }
}

macro_rules! as_bytes {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self.as_bytes(), serializer)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }
    )+};
}

as_bytes!(Ciphertext, BlindIndex);

struct FromBase64<T>(PhantomData<T>);

impl<T: Bytes> Visitor<'_> for FromBase64<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in standard base64", T::NAME)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| E::custom("not standard base64"))?;
        T::parse(bytes).map_err(E::custom)
    }
}

struct FromBytes<T>(PhantomData<T>);

impl<'de, T: Bytes> Visitor<'de> for FromBytes<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes of {}", T::NAME)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        self.visit_byte_buf(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<T, E> {
        T::parse(bytes).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        // Formats without a byte type send a sequence. Its size hint is not trusted.
        let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(4096));
        while let Some(byte) = seq.next_element()? {
            if bytes.len() >= T::MAX_LEN {
                return Err(A::Error::custom(format_args!("longer than {} can be", T::NAME)));
            }
            bytes.push(byte);
        }
        T::parse(bytes).map_err(A::Error::custom)
    }
}

#[cfg(feature = "password")]
mod password {
    use std::borrow::Cow;

    use super::{Deserialize, Deserializer, Error, Serialize, Serializer};
    use crate::password::PasswordHash;

    impl Serialize for PasswordHash {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.as_str())
        }
    }

    impl<'de> Deserialize<'de> for PasswordHash {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = Cow::<str>::deserialize(deserializer)?;
            Self::parse(text).map_err(D::Error::custom)
        }
    }
}
