;; A component that asks for the environment by WASI.
;;
;; must: refused PKT-0021 PKT-0022 PKT-0030

(component
  (import "wasi:cli/environment@0.2.0" (instance
    (export "get-environment" (func (result (list (tuple string string))))))))
