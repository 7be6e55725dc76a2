//! Tests of the suites, on each compiled cipher backend and between backends.

mod backends;
mod mix;
mod support;

#[cfg(feature = "aes-gcm")]
#[path = "tests"]
mod aes_gcm {
    type C = crate::aes_gcm::RustCrypto;

    mod epochs;
    mod in_place;
    mod keys;
    mod message_key_cache;
    mod mixed;
    mod refusals;
    mod vectors;
}

#[cfg(feature = "aws-lc-rs")]
#[path = "tests"]
#[allow(clippy::duplicate_mod, reason = "the same tests on another backend")]
mod aws_lc_rs {
    type C = crate::aws_lc_rs::AwsLc;

    mod epochs;
    mod in_place;
    mod keys;
    mod message_key_cache;
    mod mixed;
    mod refusals;
    mod vectors;
}
