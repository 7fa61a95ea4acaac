//! The page: files within the binary, each under its own name. Nothing is read from a disk, so no path leads anywhere else.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// Path, kind and text of each file.
const FILES: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", PICTURE, include_str!("page/icon.svg")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/books.js", SCRIPT, include_str!("page/books.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/links.js", SCRIPT, include_str!("page/links.js")),
    ("/stream.js", SCRIPT, include_str!("page/stream.js")),
    ("/words.js", SCRIPT, include_str!("page/words.js")),
];

/// They hold nothing of the agent's: whoever has no token sees that one is asked for.
pub(super) fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text) }))
    })
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn the_page_is_small() {
        let size: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(size < 60_000, "{size} octets");
    }

    #[test]
    fn it_needs_nothing_from_elsewhere_and_writes_no_markup() {
        for (path, _, text) in FILES {
            let known = ["http://www.w3.org/2000/svg"];
            let text = known.iter().fold(text.to_owned(), |text, name| text.replace(name, ""));
            for word in [
                "http://",
                "https://",
                "//cdn",
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
            ] {
                assert!(!text.contains(word), "{path}: {word}");
            }
        }
    }
}
