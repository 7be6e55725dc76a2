//! Tests of the suites, on each compiled cipher backend and between backends.

mod backends;
mod mix;
mod support;

/// Mounts the tests of one backend.
macro_rules! mount {
    ($name:ident, $feature:literal, $backend:ident) => {
        #[cfg(feature = $feature)]
        #[path = "tests"]
        #[allow(clippy::duplicate_mod, reason = "the same tests on another backend")]
        mod $name {
            const BACKEND: crate::Backend = crate::Backend::$backend;

            mod epochs;
            mod in_place;
            mod keys;
            mod message_key_cache;
            mod mixed;
            mod refusals;
            mod vectors;
        }
    };
}

mount!(aes_gcm, "aes-gcm", AesGcm);
mount!(aws_lc_rs, "aws-lc-rs", AwsLcRs);
mount!(ring, "ring", Ring);
