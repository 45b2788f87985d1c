;; Loops while it is instantiated.
;;
;; must: refused

(component
  (core module $m (func $f (loop (br 0))) (start $f))
  (core instance (instantiate $m)))
