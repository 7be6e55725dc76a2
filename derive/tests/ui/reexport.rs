// The generated code looks for `encx` under the path in `crate`, and nowhere else.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(fragment, crate = "nowhere")]
struct Part {
    #[encx(encrypt)]
    street: String,
}

fn main() {}
