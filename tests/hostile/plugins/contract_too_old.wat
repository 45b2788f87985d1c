;; Made for a version of the contract that no agent serves any more.
;;
;; must: refused PKT-0023
;; must: says picket:source 0.0.9, which is too old
;; must: says build the plugin again
(component
  (instance $source)
  (export "picket:source/source@0.0.9" (instance $source)))
