//! Pages of HTML that need nothing but themselves: what those of `muster report` and `muster bench` have in common.

/// How all of them look.
const STYLE: &str = include_str!("page.css");

/// A page for a browser.
pub struct Page<'a> {
    /// What its window is called.
    pub title: &'a str,
    /// What stands above everything.
    pub heading: &'a str,
    /// … and below that.
    pub about: &'a str,
    /// What is added to the style of all pages.
    pub style: &'a str,
    /// What it shows, as HTML.
    pub body: &'a str,
}

impl Page<'_> {
    /// The whole page. Its policy lets a browser load nothing.
    pub fn html(&self) -> String {
        let Page { style, body, .. } = self;
        let [title, heading, about] = [self.title, self.heading, self.about].map(escape);
        format!(
            r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,"><style>{STYLE}{style}</style></head>
<body><header><h1>{heading}</h1><p>{about}</p></header><main>{body}</main></body></html>
"#
        )
    }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A part of the page with a heading; `about` is text, `body` HTML.
pub fn section(title: &str, about: &str, body: &str) -> String {
    format!(r#"<section class="card"><h2>{}</h2><p>{}</p>{body}</section>"#, escape(title), escape(about))
}

/// What may be wider than a phone scrolls by itself, and can be reached by the keyboard for that.
pub fn wide(name: &str, body: &str) -> String {
    let name = escape(name);
    format!(r#"<div class="wide" tabindex="0" role="region" aria-label="{name}">{body}</div>"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        assert_eq!(escape("a <b> & \"c\""), "a &lt;b&gt; &amp; &quot;c&quot;");
        let page = Page { title: "<1>", heading: "<2>", about: "<3>", style: "h1{}", body: "<hr>" }.html();
        for part in ["<title>&lt;1&gt;</title>", "<h1>&lt;2&gt;</h1>", "<p>&lt;3&gt;</p>", "h1{}</style>"] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(page.contains("<main><hr></main>"));
        assert!(section("<t>", "&", "<hr>").contains("<h2>&lt;t&gt;</h2><p>&amp;</p><hr>"));
        assert!(wide("\"", "<hr>").contains(r#"aria-label="&quot;"><hr></div>"#));
    }
}
