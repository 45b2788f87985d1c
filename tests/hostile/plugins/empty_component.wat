;; A component that exports nothing.
;;
;; must: refused PKT-0021

(component)
