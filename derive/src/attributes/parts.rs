//! The parts of attributes.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, LitStr, Path, Token, parenthesized};

/// The faults found so far.
#[derive(Default)]
pub(crate) struct Faults(Option<syn::Error>);

impl Faults {
    pub(crate) fn add(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(syn::Error::new(span, message));
    }

    pub(crate) fn push(&mut self, fault: syn::Error) {
        match &mut self.0 {
            Some(faults) => faults.combine(fault),
            None => self.0 = Some(fault),
        }
    }

    pub(crate) fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A pair of the encryption context.
pub(crate) struct Pair {
    pub(crate) key: LitStr,
    pub(crate) value: PairValue,
}

pub(crate) enum PairValue {
    /// The value of a field of the same struct.
    Field(Ident),
    Literal(LitStr),
}

/// A `context(..)`.
pub(crate) struct Context {
    pub(crate) span: Span,
    /// Whether all of it could be parsed.
    pub(crate) is_whole: bool,
    pub(crate) pairs: Vec<Pair>,
}

/// A `bind(..)`.
pub(crate) struct Bind {
    pub(crate) span: Span,
    pub(crate) fields: Vec<Ident>,
}

/// Reads every `#[encx(..)]`. After a part that cannot be parsed it continues at the next comma.
pub(super) fn each(
    attrs: &[Attribute],
    faults: &mut Faults,
    mut read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("encx")) {
        let one = |meta: ParseNestedMeta<'_>| {
            let done = read(&meta, faults);
            go_on(meta.input, done, faults)
        };
        if let Err(fault) = attr.parse_nested_meta(one) {
            faults.push(fault);
        }
    }
}

/// Reads the contents of parentheses, if there are any.
pub(super) fn inner(
    meta: &ParseNestedMeta<'_>,
    faults: &mut Faults,
    read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) -> syn::Result<()> {
    if meta.input.peek(syn::token::Paren) {
        nested(meta, faults, read)?;
    }
    Ok(())
}

/// Reads the contents of parentheses.
pub(super) fn nested(
    meta: &ParseNestedMeta<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) -> syn::Result<()> {
    meta.parse_nested_meta(|meta| {
        let done = read(&meta, faults);
        go_on(meta.input, done, faults)
    })
}

/// Reports what could not be parsed, and skips it.
fn go_on(input: ParseStream<'_>, done: syn::Result<()>, faults: &mut Faults) -> syn::Result<()> {
    if let Err(fault) = done {
        faults.push(fault);
    } else if !input.is_empty() && !input.peek(Token![,]) {
        faults.push(input.error("unexpected text; remove it, or put a `,` before it"));
    }
    skip(input)
}

/// Skips to the next comma.
pub(super) fn skip(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

pub(super) fn name(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(Ident::to_string).unwrap_or_default()
}

pub(super) fn once<T>(slot: &mut Option<T>, value: T, span: Span, faults: &mut Faults) {
    if slot.replace(value).is_some() {
        faults.add(span, "this is given twice; keep one");
    }
}

/// Reports an unknown attribute, and skips its value.
pub(super) fn unknown(
    meta: &ParseNestedMeta<'_>,
    of: &str,
    known: &str,
    faults: &mut Faults,
) -> syn::Result<()> {
    let path = &meta.path;
    let shown = quote::quote!(#path).to_string().replace(' ', "");
    faults.add(
        path.span(),
        format_args!("`{shown}` is not an attribute of {of}; there are {known}"),
    );
    skip(meta.input)
}

pub(super) fn text(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<LitStr> {
    let text: LitStr = value(meta, "write a text in quotes")?;
    if text.value().is_empty() {
        faults.add(text.span(), "this is empty; write a name");
    }
    Ok(text)
}

/// Reads the contents of quotes.
pub(super) fn parsed<T: Parse>(meta: &ParseNestedMeta<'_>, what: &str) -> syn::Result<T> {
    let text: LitStr = value(meta, what)?;
    text.parse().map_err(|_| syn::Error::new(text.span(), what))
}

/// Reads what follows a `=`.
pub(super) fn value<T: Parse>(meta: &ParseNestedMeta<'_>, what: &str) -> syn::Result<T> {
    let input = meta.value()?;
    let place = input.span();
    input.parse().map_err(|_| syn::Error::new(place, what))
}

pub(super) fn bind(meta: &ParseNestedMeta<'_>) -> syn::Result<Bind> {
    let content;
    let span = meta.path.span();
    parenthesized!(content in meta.input);
    let fields = Punctuated::<Ident, Token![,]>::parse_terminated_with(&content, Ident::parse_any);
    let fields = fields.map_err(|fault| {
        // Leftover tokens would be reported as a second fault.
        let _ = content.parse::<TokenStream>();
        syn::Error::new(
            fault.span(),
            "write the names of fields: `bind(owner, rights, expires_at)`",
        )
    })?;
    let fields = fields.into_iter().collect();
    Ok(Bind { span, fields })
}

pub(super) fn list(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<Path>> {
    let content;
    parenthesized!(content in meta.input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
    Ok(paths.into_iter().collect())
}

/// Splits `attr(a(..), b = c)` into the attributes to write.
pub(super) fn list_of_attributes(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<TokenStream>> {
    let content;
    parenthesized!(content in meta.input);
    let one = |input: ParseStream<'_>| {
        let mut tokens = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            tokens.extend([input.parse::<TokenTree>()?]);
        }
        Ok(tokens)
    };
    let attributes = Punctuated::<TokenStream, Token![,]>::parse_terminated_with(&content, one)?;
    Ok(attributes.into_iter().collect())
}

pub(super) fn context(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Context> {
    let content;
    let span = meta.path.span();
    parenthesized!(content in meta.input);
    let (mut pairs, mut is_whole) = (Vec::new(), true);
    while !content.is_empty() {
        match pair(&content) {
            Ok(pair) => pairs.push(pair),
            Err(fault) => {
                faults.push(fault);
                is_whole = false;
                skip(&content)?;
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(Context {
        span,
        is_whole,
        pairs,
    })
}

fn pair(input: ParseStream<'_>) -> syn::Result<Pair> {
    let key = input.parse().map_err(|fault| {
        syn::Error::new(
            fault.span(),
            "write the pair's key in quotes: `\"tenantId\" = tenant_id`",
        )
    })?;
    input.parse::<Token![=]>()?;
    let value = if input.peek(LitStr) {
        PairValue::Literal(input.parse()?)
    } else {
        PairValue::Field(input.parse().map_err(|fault| {
            syn::Error::new(fault.span(), "write the name of a field, or a text in quotes")
        })?)
    };
    if !input.is_empty() && !input.peek(Token![,]) {
        return Err(input.error("unexpected text; remove it, or put a `,` before it"));
    }
    Ok(Pair { key, value })
}
