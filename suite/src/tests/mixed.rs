//! Everything at once, within one backend.

use proptest::prelude::*;

use super::BACKEND;
use crate::tests::mix::{plan, run};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn everything_opens_and_no_nonce_comes_twice(plan in plan()) {
        run(BACKEND, BACKEND, &plan);
    }
}
