//! Feeds arbitrary bytes to the parser of ciphertexts: it never panics, and keeps what it accepts byte for byte.

#![no_main]

use encx::Ciphertext;
use encx::limits::MAX_PLAINTEXT_LEN;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The same bytes as JSON go through serde, and are mostly refused.
    if let Ok(read) = serde_json::from_slice::<Ciphertext>(bytes) {
        assert_eq!(Ciphertext::parse(read.as_bytes()).as_ref(), Ok(&read));
    }

    let parsed = match Ciphertext::parse(bytes) {
        Ok(parsed) => parsed,
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            return;
        }
    };
    assert!(parsed.plaintext_len() <= MAX_PLAINTEXT_LEN);
    assert_eq!(parsed.suite().overhead() + parsed.plaintext_len(), bytes.len());
    assert_eq!(parsed.suite().code(), bytes[1]);
    assert_eq!(parsed.key_id().to_bytes(), bytes[2..18]);
    assert_eq!(parsed.as_bytes(), bytes);

    let json = serde_json::to_string(&parsed).expect("base64 in a JSON string cannot fail");
    let read: Ciphertext = serde_json::from_str(&json).expect("what was written can be read");
    assert_eq!(read, parsed);
    assert_eq!(parsed.into_bytes(), bytes);
});
