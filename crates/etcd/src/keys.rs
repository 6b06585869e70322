//! Keys of this cluster among all keys of etcd.

/// How keys begin that are no metadata: they come before everything that is listed or watched.
pub(crate) const RESERVED: char = '\0';

/// Maps keys to those of etcd and back.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The key in etcd.
    pub(crate) fn key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The key of ours that this is in etcd; `None` for one that nobody asked for.
    pub(crate) fn own(&self, key: &[u8]) -> Option<String> {
        let own = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(own).ok().map(str::to_owned)
    }

    /// The first key in etcd that a list of `prefix` after `after` may have.
    pub(crate) fn start(&self, prefix: &str, after: Option<&str>) -> Vec<u8> {
        match after {
            // The next key in the order of bytes.
            Some(after) if after >= prefix => [self.key(after).as_slice(), &[0]].concat(),
            Some(_) | None if prefix.is_empty() => self.key("\u{1}"),
            Some(_) | None => self.key(prefix),
        }
    }

    /// The first key in etcd behind all that start with `prefix`.
    pub(crate) fn end(&self, prefix: &str) -> Vec<u8> {
        let mut end = self.key(prefix);
        if let Some(last) = end.last_mut() {
            // The prefix is not empty, and no byte of UTF-8 is 255.
            *last = last.saturating_add(1);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_exactly_the_keys_of_its_prefix() {
        let keys = Keys::new("b/");
        for (prefix, inside, outside) in [
            ("", vec!["\u{1}", "a", "ä", "\u{10FFFF}z"], vec!["", "\0lead"]),
            ("\0lead", vec!["\0lead"], vec!["\u{1}", "a"]),
            ("a/", vec!["a/", "a/1", "a/\u{10FFFF}"], vec!["a", "a0", "b"]),
            ("\u{10FFFF}", vec!["\u{10FFFF}", "\u{10FFFF}z"], vec!["\u{10FFFE}"]),
        ] {
            let range = keys.start(prefix, None)..keys.end(prefix);
            assert!(inside.iter().all(|key| range.contains(&keys.key(key))), "{prefix:?}");
            assert!(!outside.iter().any(|key| range.contains(&keys.key(key))), "{prefix:?}");
            assert!(!range.contains(&b"c/a".to_vec()) && !range.contains(&b"b.".to_vec()));
        }
    }

    #[test]
    fn a_list_goes_on_behind_its_last_key() {
        let keys = Keys::new("b/");
        assert_eq!(keys.start("a", Some("a1")), b"b/a1\0");
        assert_eq!(keys.start("b", Some("a1")), b"b/b", "a key before the prefix skips nothing");
        assert_eq!(keys.own(b"b/a1").as_deref(), Some("a1"));
        assert_eq!(keys.own(b"x/a1"), None);
        assert_eq!(keys.own(b"b/\xff"), None);
    }
}
