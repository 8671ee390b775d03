{{/* Combinations of values that contradict each other. Each message has the value, the reason and the key to change. */}}
{{- define "finetune.check" -}}
{{- $config := .Values.config | default dict -}}
{{- $input := ($config.input).uri | default "" | toString | trimSuffix "/" -}}
{{- $output := ($config.output).uri | default "" | toString | trimSuffix "/" -}}
{{- $gpus := include "finetune.gpus" . | int -}}
{{- $cache := .Values.cache | default dict -}}
{{- $type := include "finetune.cacheType" . -}}
{{- $account := .Values.serviceAccount | default dict -}}
{{- $cronjob := .Values.cronjob | default dict -}}

{{- if and (has (include "finetune.command" .) (list "run" "doctor")) (eq $gpus 0) ($config.device).require_gpu -}}
{{- fail "config.device.require_gpu is true and gpu.count is 0: the Pod would have no GPU and always exit with 4. Set gpu.count to 1 or more, or leave config.device.require_gpu out" -}}
{{- end -}}
{{- if and (eq (include "finetune.command" .) "run") $input (not $output) -}}
{{- fail (printf "config.output.uri must be given with config.input.uri=%s: the model would be lost with the Pod. Set config.output.uri to gs://BUCKET/PREFIX" $input) -}}
{{- end -}}
{{- if and (eq (include "finetune.command" .) "run") .Values.arguments -}}
{{- fail (printf "arguments=%s have no place in command=run: its settings stand under config, with the same names" (toJson .Values.arguments)) -}}
{{- end -}}
{{- if and (has (include "finetune.command" .) (list "predict" "evaluate" "verify")) (not .Values.arguments) -}}
{{- fail (printf "arguments must be given with command=%s: the run first, as in --set 'arguments={gs://BUCKET/MODELS/latest,…}'" (include "finetune.command" .)) -}}
{{- end -}}
{{- if and $input (hasPrefix (printf "%s/" $input) (printf "%s/" $output)) -}}
{{- fail (printf "config.output.uri=%s is inside config.input.uri=%s: the next run would read published files as data. Set config.output.uri to another prefix" $output $input) -}}
{{- end -}}
{{- range $key, $uri := dict "config.input.uri" $input "config.output.uri" $output -}}
{{- if and $uri (not (hasPrefix "gs://" $uri)) -}}
{{- $mounted := dict -}}
{{- range $.Values.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $uri) }}{{ $_ := set $mounted "yes" true }}{{ end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "%s=%s is neither gs://BUCKET/PREFIX nor a path under one of extraVolumeMounts: the container's own file system is read-only and empty. Mount a volume there with extraVolumes and extraVolumeMounts, or set %s to gs://…" $key $uri $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if lt (include "finetune.gracePeriod" . | int) 15 -}}
{{- fail (printf "terminationGracePeriodSeconds=%s is below 15: the job needs up to 8 s from SIGTERM to save its state, and the kubelet needs some more. Leave terminationGracePeriodSeconds unset" (include "finetune.gracePeriod" .)) -}}
{{- end -}}
{{- if and (eq $type "existingClaim") (not $cache.existingClaim) -}}
{{- fail "cache.existingClaim must be given with cache.type=existingClaim: the name of a PersistentVolumeClaim in this namespace" -}}
{{- end -}}
{{- if and (ne $type "existingClaim") $cache.existingClaim -}}
{{- fail (printf "cache.existingClaim=%s has no effect with cache.type=%s. Set cache.type to existingClaim" $cache.existingClaim $type) -}}
{{- end -}}
{{- if and (ne $type "ephemeral") $cache.storageClassName -}}
{{- fail (printf "cache.storageClassName=%s has no effect with cache.type=%s. Set cache.type to ephemeral" $cache.storageClassName $type) -}}
{{- end -}}
{{- if and (eq $type "ephemeral") (not $cache.sizeLimit) -}}
{{- fail "cache.sizeLimit must be given with cache.type=ephemeral: the size of the volume, for example 100Gi" -}}
{{- end -}}
{{- if and (ne $type "existingClaim") $cache.sizeLimit ($config.cache).max_bytes (not ($config.cache).dir) -}}
{{- if gt (int64 $config.cache.max_bytes) (include "finetune.bytes" $cache.sizeLimit | int64) -}}
{{- fail (printf "config.cache.max_bytes=%d is more than cache.sizeLimit=%s: the Pod would be evicted once the cache is full. Raise cache.sizeLimit, or leave config.cache.max_bytes out" (int64 $config.cache.max_bytes) (include "finetune.text" $cache.sizeLimit)) -}}
{{- end -}}
{{- end -}}
{{- if and (include "finetune.events" .) (not (include "finetune.makesServiceAccount" .)) (not $account.name) -}}
{{- fail "serviceAccount.name must be given with serviceAccount.create=false while events.enabled is true: else every Pod of the namespace could create Events. Name an account, or set events.enabled to false" -}}
{{- end -}}
{{- if and (not (include "finetune.makesServiceAccount" .)) $account.annotations -}}
{{- fail "serviceAccount.annotations have no effect with serviceAccount.create=false: annotate the existing account itself, or set serviceAccount.create to true" -}}
{{- end -}}
{{- if and $cronjob.schedule (not $cronjob.enabled) -}}
{{- fail (printf "cronjob.schedule=%q has no effect with cronjob.enabled=false. Set cronjob.enabled to true" $cronjob.schedule) -}}
{{- end -}}
{{- end }}
