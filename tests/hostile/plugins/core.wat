;; A core module instead of a component.
;;
;; must: refused PKT-0005

(module
  (memory (export "memory") 1)
  (func (export "collect")))
