{{/* The Jobs of the release, as a selector of one series for each: matched by name, since kube-state-metrics exports no
labels of objects unless it is configured to. */}}
{{- define "finetune.alertJobs" -}}
{{- if (.Values.cronjob).enabled -}}
kube_job_owner{namespace={{ .Release.Namespace | quote }},owner_kind="CronJob",owner_name
{{- if (.Values.cronjob).plan }}=~{{ printf "%s|%s" (include "finetune.fullname" .) (include "finetune.planName" .) | quote }}
{{- else }}={{ include "finetune.fullname" . | quote }}
{{- end }}}
{{- else -}}
kube_job_info{namespace={{ .Release.Namespace | quote }},job_name={{ include "finetune.jobName" . | quote }}}
{{- end -}}
{{- end }}

{{/* 1 for each Pod in a phase, with the name of its Job. Takes root and phase. `max` everywhere: with two replicas of
kube-state-metrics each series exists twice. */}}
{{- define "finetune.alertPods" -}}
max by (namespace, job_name, pod) (
  label_replace(kube_pod_owner{namespace={{ .root.Release.Namespace | quote }},owner_kind="Job"}, "job_name", "$1", "owner_name", "(.*)")
  * on (namespace, pod) group_left ()
  max by (namespace, pod) (kube_pod_status_phase{namespace={{ .root.Release.Namespace | quote }},phase={{ .phase | quote }}})
) == 1
{{- end }}

{{/* The severity of an alert; nothing where it is left out. Takes the alert's values and its default. */}}
{{- define "finetune.severity" -}}
{{- $values := .values | default dict -}}
{{- if hasKey $values "severity" }}{{ $values.severity }}{{ else }}{{ .default }}{{ end -}}
{{- end }}

{{/* What every alert has in common. Takes root, name, severity, summary and description. */}}
{{- define "finetune.alertFrame" -}}
{{- $alerts := .root.Values.alerts -}}
labels:
  severity: {{ .severity | quote }}
  {{- with include "finetune.strings" $alerts.alertLabels | trim }}{{ nindent 2 . }}{{ end }}
annotations:
  summary: {{ .summary | quote }}
  description: {{ .description | quote }}
  {{- if $alerts.runbookUrl }}
  runbook_url: {{ printf "%s#%s" $alerts.runbookUrl (lower .name) | quote }}
  {{- else }}
  runbook: {{ printf "docs/operations.md#%s" (lower .name) | quote }}
  {{- end }}
  {{- with include "finetune.strings" $alerts.alertAnnotations | trim }}{{ nindent 2 . }}{{ end }}
{{- end }}
