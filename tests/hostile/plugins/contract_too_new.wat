;; Made for a version of the contract that this agent does not know yet.
;;
;; must: refused PKT-0023
;; must: says picket:source 0.9.0, which is too new
;; must: says upgrade the agent
(component
  (import "picket:source/sink@0.9.0" (instance (export "push" (func))))
  (instance $source)
  (export "picket:source/source@0.9.0" (instance $source)))
