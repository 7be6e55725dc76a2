use super::*;

#[test]
fn defaults_and_bounds_are_pinned() {
    assert_eq!(
        PasswordParams::default(),
        PasswordParams::new(19 * 1024, 2, 1).unwrap()
    );
    // OWASP's choices, of which none is stronger than another.
    for (mib, passes) in [(46, 1), (19, 2), (12, 3), (9, 4), (7, 5)] {
        PasswordParams::new(mib * 1024, passes, 1).unwrap();
    }
    for (memory, passes, lanes) in [
        (19 * 1024, 1, 1),
        (7 * 1024, 4, 1),
        (6 * 1024, 16, 1),
        (256 * 1024 + 1, 1, 1),
        (19 * 1024, 17, 1),
        (19 * 1024, 0, 1),
        (19 * 1024, 2, 0),
        (19 * 1024, 2, 17),
        (256 * 1024, 5, 1),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let error = PasswordParams::new(memory, passes, lanes).unwrap_err();
        assert!(matches!(error, PasswordError::Params { .. }), "{error}");
    }
    assert!(PasswordParams::insecure_new(7, 1, 1).is_err());
    assert!(PasswordParams::insecure_new(15, 1, 2).is_err());
    PasswordParams::insecure_new(16, 1, 2).unwrap();
}
