//! What stands in `#[encx(..)]`, as it was written. Every fault is noted and reading goes on, so that all are shown at once.

mod index;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, LitStr, Path, Token, Visibility, parenthesized};

pub(crate) use index::{Normalize, OfIndex, OfPart};

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
    /// Of a field of the same struct.
    Field(Ident),
    Literal(LitStr),
}

/// The attributes of a struct.
#[derive(Default)]
pub(crate) struct OfStruct {
    /// Those over several fields.
    pub(crate) indexes: Vec<OfIndex>,
    pub(crate) table: Option<LitStr>,
    pub(crate) sql_table: Option<LitStr>,
    pub(crate) context: Option<Context>,
    pub(crate) fragment: Option<Span>,
    pub(crate) krate: Option<Path>,
    pub(crate) name: Option<Ident>,
    pub(crate) vis: Option<Visibility>,
    pub(crate) derives: Option<Vec<Path>>,
    pub(crate) attrs: Vec<TokenStream>,
}

/// A `context(..)`.
pub(crate) struct Context {
    pub(crate) span: Span,
    /// Whether all of it could be read.
    pub(crate) is_whole: bool,
    pub(crate) pairs: Vec<Pair>,
}

/// A `bind(..)`.
pub(crate) struct Bind {
    pub(crate) span: Span,
    pub(crate) fields: Vec<Ident>,
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct OfField {
    pub(crate) indexes: Vec<OfIndex>,
    pub(crate) password: Option<Span>,
    pub(crate) password_context: Option<Context>,
    pub(crate) id: Option<Span>,
    pub(crate) id_kind: Option<LitStr>,
    pub(crate) encrypt: Option<Span>,
    pub(crate) json: Option<Span>,
    pub(crate) nested: Option<Span>,
    pub(crate) nested_prefix: Option<LitStr>,
    pub(crate) token: Option<Span>,
    pub(crate) bind: Option<Bind>,
    pub(crate) rename: Option<LitStr>,
    pub(crate) sql_column: Option<LitStr>,
    pub(crate) attrs: Vec<TokenStream>,
}

const STRUCT_KEYS: &str = "`table`, `sql_table`, `context`, `encrypted`, `index`, `fragment`, `crate`";
const ENCRYPTED_KEYS: &str = "`name`, `vis`, `derive`, `attr`";
const FIELD_KEYS: &str =
    "`id`, `encrypt`, `index`, `json`, `nested`, `password`, `token`, `bind`, `rename`, `sql_column`, `attr`";

impl OfStruct {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "table" => once(&mut read.table, text(meta, faults)?, span, faults),
                "sql_table" => once(&mut read.sql_table, text(meta, faults)?, span, faults),
                "context" => once(&mut read.context, context(meta, faults)?, span, faults),
                "fragment" => once(&mut read.fragment, span, span, faults),
                "crate" => {
                    let path = parsed(meta, "write the path of `encx`: `crate = \"my_reexport::encx\"`")?;
                    once(&mut read.krate, path, span, faults);
                }
                "encrypted" => nested(meta, faults, |meta, faults| read.encrypted(meta, faults))?,
                "index" => read.indexes.push(OfIndex::of_struct(meta, faults)?),
                _ => unknown(meta, "a struct", STRUCT_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }

    fn encrypted(&mut self, meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<()> {
        let span = meta.path.span();
        match name(meta).as_str() {
            "name" => {
                let name = parsed(meta, "write the name of a struct: `name = \"UserRow\"`")?;
                once(&mut self.name, name, span, faults);
            }
            "vis" => {
                let vis = parsed(
                    meta,
                    "write a visibility: `vis = \"pub(crate)\"`, or `vis = \"pub(self)\"` for none",
                )?;
                once(&mut self.vis, vis, span, faults);
            }
            "derive" => once(&mut self.derives, list(meta)?, span, faults),
            "attr" => self.attrs.extend(list_of_attributes(meta)?),
            _ => unknown(meta, "`encrypted(..)`", ENCRYPTED_KEYS, faults)?,
        }
        Ok(())
    }
}

impl OfField {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "id" => {
                    once(&mut read.id, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "kind" => {
                            once(&mut read.id_kind, text(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`id(..)`", "`kind`", faults),
                    })?;
                }
                "encrypt" => once(&mut read.encrypt, span, span, faults),
                "json" => once(&mut read.json, span, span, faults),
                "nested" => {
                    once(&mut read.nested, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "prefix" => {
                            once(&mut read.nested_prefix, text(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`nested(..)`", "`prefix`", faults),
                    })?;
                }
                "index" => read.indexes.push(OfIndex::of_field(meta, faults)?),
                "password" => {
                    once(&mut read.password, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "context" => {
                            once(&mut read.password_context, context(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`password(..)`", "`context`", faults),
                    })?;
                }
                "token" => once(&mut read.token, span, span, faults),
                "bind" => once(&mut read.bind, bind(meta)?, span, faults),
                "rename" => once(&mut read.rename, text(meta, faults)?, span, faults),
                "sql_column" => once(&mut read.sql_column, text(meta, faults)?, span, faults),
                "attr" => read.attrs.extend(list_of_attributes(meta)?),
                _ => unknown(meta, "a field", FIELD_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }
}

/// Reads every `#[encx(..)]`. Behind what cannot be read it goes on at the next comma.
fn each(
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

/// Reads what stands in parentheses, if there are any.
fn inner(
    meta: &ParseNestedMeta<'_>,
    faults: &mut Faults,
    read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) -> syn::Result<()> {
    if meta.input.peek(syn::token::Paren) {
        nested(meta, faults, read)?;
    }
    Ok(())
}

/// Reads what stands in parentheses.
fn nested(
    meta: &ParseNestedMeta<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) -> syn::Result<()> {
    meta.parse_nested_meta(|meta| {
        let done = read(&meta, faults);
        go_on(meta.input, done, faults)
    })
}

/// Notes what could not be read, and skips it.
fn go_on(input: ParseStream<'_>, done: syn::Result<()>, faults: &mut Faults) -> syn::Result<()> {
    if let Err(fault) = done {
        faults.push(fault);
    } else if !input.is_empty() && !input.peek(Token![,]) {
        faults.push(input.error("nothing more belongs here; remove it, or put a `,` before it"));
    }
    skip(input)
}

/// Skips what is left before the next comma.
fn skip(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

fn name(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(Ident::to_string).unwrap_or_default()
}

fn once<T>(slot: &mut Option<T>, value: T, span: Span, faults: &mut Faults) {
    if slot.replace(value).is_some() {
        faults.add(span, "this is given twice; keep one");
    }
}

/// Notes an attribute that is none, and skips its value.
fn unknown(meta: &ParseNestedMeta<'_>, of: &str, known: &str, faults: &mut Faults) -> syn::Result<()> {
    let path = &meta.path;
    let shown = quote::quote!(#path).to_string().replace(' ', "");
    faults.add(
        path.span(),
        format_args!("`{shown}` is no attribute of {of}; there are {known}"),
    );
    skip(meta.input)
}

fn text(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<LitStr> {
    let text: LitStr = value(meta, "write a text in quotes")?;
    if text.value().is_empty() {
        faults.add(text.span(), "this is empty; write a name");
    }
    Ok(text)
}

/// Reads what stands in quotes.
fn parsed<T: Parse>(meta: &ParseNestedMeta<'_>, what: &str) -> syn::Result<T> {
    let text: LitStr = value(meta, what)?;
    text.parse().map_err(|_| syn::Error::new(text.span(), what))
}

/// Reads what stands behind a `=`.
fn value<T: Parse>(meta: &ParseNestedMeta<'_>, what: &str) -> syn::Result<T> {
    let input = meta.value()?;
    let place = input.span();
    input.parse().map_err(|_| syn::Error::new(place, what))
}

fn bind(meta: &ParseNestedMeta<'_>) -> syn::Result<Bind> {
    let content;
    let span = meta.path.span();
    parenthesized!(content in meta.input);
    let fields = Punctuated::<Ident, Token![,]>::parse_terminated_with(&content, Ident::parse_any);
    let fields = fields.map_err(|fault| {
        // What is left over would be a second fault.
        let _ = content.parse::<TokenStream>();
        syn::Error::new(
            fault.span(),
            "write the names of fields: `bind(owner, rights, expires_at)`",
        )
    })?;
    let fields = fields.into_iter().collect();
    Ok(Bind { span, fields })
}

fn list(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<Path>> {
    let content;
    parenthesized!(content in meta.input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
    Ok(paths.into_iter().collect())
}

/// Splits `attr(a(..), b = c)` into the attributes to write.
fn list_of_attributes(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<TokenStream>> {
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

fn context(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Context> {
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
        return Err(input.error("nothing more belongs here; remove it, or put a `,` before it"));
    }
    Ok(Pair { key, value })
}
