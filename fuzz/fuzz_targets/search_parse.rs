//! Feeds arbitrary bytes to the parsers of blind indexes and password hashes: neither panics, and both keep what they
//! accept byte for byte.

#![no_main]

use encx::password::{PasswordHash, PasswordParams};
use encx::search::BlindIndex;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match BlindIndex::parse(bytes) {
        Ok(index) => {
            assert_eq!(index.as_bytes(), bytes);
            assert_eq!(index.key_tag(), bytes[..4]);
            let json = serde_json::to_string(&index).expect("base64 in a JSON string cannot fail");
            assert_eq!(
                serde_json::from_str::<BlindIndex>(&json).expect("what was written can be read"),
                index
            );
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Most texts fail at the beginning: let each get further.
    let known = "$encx$v=1,k=01a2053d-7b01-7cc1-b36a-182ccc288e45$argon2id$v=19$";
    for text in [text, &format!("$encx$v=1,k={text}"), &format!("{known}{text}")] {
        match PasswordHash::parse(text) {
            Ok(hash) => {
                assert_eq!(hash.as_str(), text);
                assert!(text.len() <= PasswordHash::MAX_LEN);
                let params = hash.params();
                assert!(params.memory_kib() <= PasswordParams::MAX_MEMORY_KIB);
                assert!(
                    u64::from(params.memory_kib()) * u64::from(params.passes())
                        <= u64::from(PasswordParams::MAX_WORK)
                );
                let json = serde_json::to_string(&hash).expect("text is JSON");
                assert_eq!(
                    serde_json::from_str::<PasswordHash>(&json).expect("what was written can be read"),
                    hash
                );
            }
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
    }
});
