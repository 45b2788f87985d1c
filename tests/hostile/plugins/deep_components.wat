;; Components within components, ninety deep, beside functions of other types than the contract's: it is read and compiled, and
;; refused for its types.
;;
;; must: refused PKT-0060

(component
  (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component (component )))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))
  ;; So much of a source that it comes to be instantiated.
  (core module $ok (func (export "f")))
  (core instance $ok (instantiate $ok))
  (func $f (canon lift (core func $ok "f")))
  (instance $source (export "describe" (func $f)) (export "configure" (func $f)) (export "collect" (func $f)))
  (export "picket:source/source@0.2.0" (instance $source)))
