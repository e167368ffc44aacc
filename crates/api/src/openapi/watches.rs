//! The old paths of watches, `/api/v1/watch/pods`: deprecated, and served as long as there is a `v1`.

use serde_json::{Map, Value};

use super::operations::Resource;
use super::{parameters, schemas};

const DEPRECATED: &str = "deprecated: use the 'watch' parameter with a list operation instead";

impl Resource<'_> {
    /// The paths below `base` at which a kind can be watched; its objects are at `collection`.
    pub(super) fn watches(&self, base: &str, collection: &str) -> Vec<(String, Value)> {
        let namespaced = self.row.namespaced();
        let place = collection.strip_prefix(base).unwrap_or(collection);
        let mut paths = Vec::new();
        if namespaced {
            let path = format!("{base}/watch/{}", self.row.plural);
            paths.push((path, self.watch("ListForAllNamespaces", false, false)));
        }
        let list = format!("{base}/watch{place}");
        let one = format!("{list}/{{name}}");
        paths.push((list, self.watch("List", namespaced, false)));
        paths.push((one, self.watch("", namespaced, true)));
        paths
    }

    fn watch(&self, suffix: &str, namespaced: bool, named: bool) -> Value {
        let kind = &self.row.gvk.kind;
        let (action, text) = if named {
            let text = format!(
                "watch changes to an object of kind {kind}. {DEPRECATED}, filtered to a single item with the 'fieldSelector' parameter."
            );
            ("watch", text)
        } else {
            let text = format!("watch individual changes to a list of {kind}. {DEPRECATED}.");
            ("watchlist", text)
        };
        let mut operation = self.operation(action, self.id("watch", "", suffix), text);
        operation.parameters = parameters::list(true);
        operation.streams();
        operation.answers = vec![(200, Some(schemas::meta("WatchEvent")))];
        let mut methods = Map::new();
        methods.insert("get".to_owned(), operation.build());
        self.item(methods, namespaced, named, true)
    }
}
