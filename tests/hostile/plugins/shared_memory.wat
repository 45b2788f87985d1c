;; A memory that threads share.
;;
;; must: refused PKT-0041

(component
  (core module $m (memory 1 1 shared))
  (core instance (instantiate $m))
  ;; So much of a source that it comes to be instantiated.
  (core module $ok (func (export "f")))
  (core instance $ok (instantiate $ok))
  (func $f (canon lift (core func $ok "f")))
  (instance $source (export "describe" (func $f)) (export "configure" (func $f)) (export "collect" (func $f)))
  (export "picket:source/source@0.2.0" (instance $source)))
