;; Loops while it is instantiated.
;;
;; must: refused PKT-0061

(component
  (core module $m (func $f (loop (br 0))) (start $f))
  (core instance (instantiate $m))
  ;; So much of a source that it comes to be instantiated.
  (core module $ok (func (export "f")))
  (core instance $ok (instantiate $ok))
  (func $f (canon lift (core func $ok "f")))
  (instance $source (export "describe" (func $f)) (export "configure" (func $f)) (export "collect" (func $f)))
  (export "picket:source/source@0.2.0" (instance $source)))
