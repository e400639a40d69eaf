//! Which places of a store are resources, of which type, linked how. Pure.

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its media type.
    pub media_type: &'static str,
    /// Whether what is above links to it with its revision.
    pub versioned: bool,
}

impl Node {
    /// A resource that is linked with its revision.
    pub const fn versioned(media_type: &'static str) -> Self {
        Self { media_type, versioned: true }
    }

    /// A resource that is linked without its revision.
    pub const fn plain(media_type: &'static str) -> Self {
        Self { media_type, versioned: false }
    }
}

/// Patterns of paths, with the resources that lie there. `*` stands for any one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(pub Vec<(String, Node)>);

impl Tree {
    /// The resource at exactly this path, if one belongs there.
    pub fn node(&self, path: &str) -> Option<Node> {
        self.0.iter().find(|(pattern, _)| matches(pattern, path)).map(|(_, node)| *node)
    }

    /// All resources on the way to `path`, and at it, nearest the root first.
    pub(super) fn way(&self, path: &str) -> Vec<(String, Node)> {
        let ends = path.char_indices().filter(|(at, character)| *character == '/' && *at > 0).map(|(at, _)| at);
        let places = ends.chain([path.len()]).map(|end| &path[..end]);
        places.filter_map(|place| Some((place.to_owned(), self.node(place)?))).collect()
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut keys = path.split('/').filter(|key| !key.is_empty());
    let fits = pattern.split('/').filter(|key| !key.is_empty()).all(|wanted| match keys.next() {
        Some(key) => wanted == "*" || wanted == key,
        None => false,
    });
    fits && keys.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_on_the_way_are_found() {
        let tree = Tree(vec![
            ("/bookmarks".to_owned(), Node::versioned("b")),
            ("/bookmarks/services/*".to_owned(), Node::versioned("s")),
            ("/bookmarks/services/*/days/*".to_owned(), Node::plain("d")),
        ]);
        let way = tree.way("/bookmarks/services/x/days/today");
        let way: Vec<_> = way.iter().map(|(path, node)| (path.as_str(), node.media_type)).collect();
        let expected = [("/bookmarks", "b"), ("/bookmarks/services/x", "s"), ("/bookmarks/services/x/days/today", "d")];
        assert_eq!(way, expected);
        assert_eq!(tree.node("/bookmarks/services"), None);
        assert_eq!(tree.node("/bookmarks/services/x/days/today/key"), None);
    }
}
